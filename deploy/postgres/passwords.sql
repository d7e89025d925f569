-- The passwords of the roles that deploy/roles.sql makes, from the environment: for psql 15 or newer.
\getenv owner HOOKLEDGER_OWNER_PASSWORD
\getenv ingress HOOKLEDGER_INGRESS_PASSWORD
\getenv dispatcher HOOKLEDGER_DISPATCHER_PASSWORD
\getenv registry HOOKLEDGER_REGISTRY_PASSWORD
ALTER ROLE hookledger_owner PASSWORD :'owner';
ALTER ROLE hookledger_ingress PASSWORD :'ingress';
ALTER ROLE hookledger_dispatcher PASSWORD :'dispatcher';
ALTER ROLE hookledger_registry PASSWORD :'registry';
