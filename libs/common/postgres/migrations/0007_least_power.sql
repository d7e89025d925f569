-- What services were granted and never used. tests/integration/postgres/test_grants.py names the lines of a change.
REVOKE USAGE ON SCHEMA projection_1 FROM hookledger_ingress;
REVOKE SELECT ON TABLE hookledger.fact FROM hookledger_ingress;
REVOKE SELECT ON TABLE hookledger.message FROM hookledger_ingress;
REVOKE SELECT ON TABLE hookledger.message_body FROM hookledger_ingress;
REVOKE SELECT ON TABLE hookledger.outbox FROM hookledger_ingress;

REVOKE DELETE ON TABLE hookledger.app_turn FROM hookledger_dispatcher;
REVOKE SELECT ON TABLE hookledger.attempt_content FROM hookledger_dispatcher;
REVOKE DELETE ON TABLE hookledger.checkpoint FROM hookledger_dispatcher;
REVOKE DELETE ON TABLE hookledger.lane FROM hookledger_dispatcher;
REVOKE SELECT ON TABLE projection_1.attempt FROM hookledger_dispatcher;
