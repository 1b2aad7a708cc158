-- What people call the key of a call; '' = it has no name. The organisation's own name goes before the one for all.
transform(
    concat(e.org_id, '\0', e.api_key_id),
    arrayConcat([''], (SELECT groupArray(concat(org_id, '\0', api_key_id)) FROM key_labels WHERE org_id != '*')),
    arrayConcat([''], (SELECT groupArray(label) FROM key_labels WHERE org_id != '*')),
    transform(
        toString(e.api_key_id),
        arrayConcat([''], (SELECT groupArray(api_key_id) FROM key_labels WHERE org_id = '*')),
        arrayConcat([''], (SELECT groupArray(label) FROM key_labels WHERE org_id = '*')),
        ''))
