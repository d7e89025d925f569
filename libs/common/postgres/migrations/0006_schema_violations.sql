-- What was found wrong with a payload where the organisation's schema validation only warns: a JSON array of
-- {path, message}, without what the payload holds; NULL where nothing was, or nothing was looked at.
ALTER TABLE hookledger.message ADD COLUMN schema_violations jsonb;
