-- Hookledger's roles, for whoever administers the database:
--
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -f deploy/roles.sql
--
-- The connection names the database that Hookledger shall have, and its user may create roles. It may run again. Then
-- give each role its password, such as with psql's `\password hookledger_ingress`, and run `hookledger migrate` as
-- hookledger_owner.
--
-- What a service may do with a table stands in the migration that makes the table: each has exactly what its statements
-- use, which tests hold against the code. Here is what comes before there is any table.
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY[
            'hookledger_owner', 'hookledger_ingress', 'hookledger_dispatcher', 'hookledger_registry'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) THEN
            EXECUTE format('CREATE ROLE %I', one);
        END IF;
        EXECUTE format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', one);
    END LOOP;

    -- Whoever has the owner's URL may take the role of a service: `hookledger verify` takes the registry's.
    GRANT hookledger_ingress, hookledger_dispatcher, hookledger_registry TO hookledger_owner;

    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO hookledger_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO hookledger_ingress, hookledger_dispatcher, hookledger_registry',
        current_database());
    -- `hookledger rebuild` and `hookledger verify` sort in temporary tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO hookledger_owner, hookledger_registry', current_database());
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
END
$$;
