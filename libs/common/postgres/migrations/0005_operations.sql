-- What people ask for beside the schedule: manual attempts, replays, and erasing contents.

ALTER TABLE projection_1.delivery_state
    ADD COLUMN resend_at   timestamptz, -- since when a manual attempt is asked for
    ADD COLUMN beside      text,        -- the status that the manual attempt in flight stands beside
    ADD COLUMN reopened_at timestamptz; -- when the present run began, unless it is the first

-- How far the work of each job has come. What it is to do stands in its registry object. `cursor` is the last message
-- that it has looked at; `ready_at` is when it goes on.
CREATE TABLE hookledger.job (
    id         uuid PRIMARY KEY,
    state      text NOT NULL DEFAULT 'running', -- or finished, failed, cancelled
    reason     text,
    cursor     uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    examined   bigint NOT NULL DEFAULT 0,
    requested  bigint NOT NULL DEFAULT 0,
    ready_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_running ON hookledger.job (ready_at) WHERE state = 'running';

GRANT SELECT, INSERT, UPDATE ON hookledger.job TO hookledger_registry;
GRANT SELECT, UPDATE ON hookledger.job TO hookledger_dispatcher;

-- An erased content leaves a row that says so.
ALTER TABLE hookledger.attempt_content ADD COLUMN erased boolean NOT NULL DEFAULT false;
GRANT INSERT, UPDATE ON hookledger.attempt_content TO hookledger_registry;
GRANT DELETE ON hookledger.message_body TO hookledger_registry;

-- An example is a message of the registry's own.
GRANT INSERT ON hookledger.message, hookledger.message_body, hookledger.fact TO hookledger_registry;
GRANT USAGE ON SEQUENCE hookledger.fact_position TO hookledger_registry;
