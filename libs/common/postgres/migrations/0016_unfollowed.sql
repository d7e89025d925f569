-- In a transaction of its own: who writes facts waits for the index that was made before, and would wait for this one's end
-- as well, while this one waits for them.
DROP INDEX hookledger.fact_order;
