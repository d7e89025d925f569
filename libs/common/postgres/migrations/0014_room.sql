-- A delivery's state is written when its first attempt begins, and once more, at least, when it ends. Where the page of
-- the first has no room for the second, all four indexes get another entry: two fifths of the deliveries of a busy
-- platform. With half of each page left free there is room, and the table grows no faster: a delivery took two places.
CREATE OR REPLACE FUNCTION hookledger.create_partitions(weeks_ahead integer DEFAULT 4) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    week_ms  constant bigint := 604800000;
    this     bigint := floor(extract(epoch FROM clock_timestamp()) * 1000 / 604800000)::bigint;
    parent   text;
    name     text;
    made     integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('hookledger.create_partitions'));
    FOR week IN this - 1 .. this + weeks_ahead LOOP
        FOREACH parent IN ARRAY ARRAY['hookledger.fact', 'hookledger.message', 'hookledger.message_body',
                'hookledger.attempt_content', 'projection_1.delivery_state', 'projection_1.attempt'] LOOP
            name := parent || '_' || to_char(to_timestamp(week * week_ms / 1000) AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', name, parent,
                rpad(lpad(to_hex(week * week_ms), 12, '0'), 32, '0')::uuid,
                rpad(lpad(to_hex((week + 1) * week_ms), 12, '0'), 32, '0')::uuid);
            IF parent = 'hookledger.fact' THEN
                EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION hookledger.refuse_change()', name);
            ELSIF parent = 'projection_1.delivery_state' THEN
                EXECUTE format('ALTER TABLE %s SET (fillfactor = 50)', name);
            END IF;
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT inhrelid::regclass::text FROM pg_inherits
            WHERE inhparent = 'projection_1.delivery_state'::regclass LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 50)', name);
    END LOOP;
END
$$;
