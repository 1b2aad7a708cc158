-- Which keys of ours a provider's own names of keys are, as a person has stated. "" = of all providers.
SELECT JSONExtractString(value, 'provider') AS provider, JSONExtractString(value, 'ref') AS ref,
    JSONExtractString(value, 'api_key_id') AS api_key_id
FROM registry FINAL
WHERE startsWith(key, 'bill_key:') AND value != ''
    AND ({provider:String} = '' OR JSONExtractString(value, 'provider') = {provider:String})
ORDER BY provider, ref
