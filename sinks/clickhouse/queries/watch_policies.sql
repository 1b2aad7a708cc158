-- The policies in force in a partition, as WATCH has read them.
SELECT policy_id, policy FROM watch_policies FINAL WHERE priced_partition = {partition:UInt16} AND NOT deleted ORDER BY policy_id
