-- What an organisation's calls have their keys called, or all labels: `org_id` '*' is for whoever has none of his own.
SELECT org_id, api_key_id, label, owner, cost_centre
FROM key_labels
WHERE empty({orgs:Array(String)}) OR org_id = '*' OR has({orgs:Array(String)}, org_id)
