-- Rewrites the texts that people got of alerts, where they name a user or an address: once more where two stand side by
-- side. Before the alerts themselves go, which say of which organisation they are.
ALTER TABLE alert_states UPDATE
    title = replaceRegexpAll(replaceRegexpAll(title, {word:String}, '\\1(forgotten)\\3'), {word:String}, '\\1(forgotten)\\3'),
    body = replaceRegexpAll(replaceRegexpAll(body, {word:String}, '\\1(forgotten)\\3'), {word:String}, '\\1(forgotten)\\3')
WHERE (match(title, {word:String}) OR match(body, {word:String}))
    AND ({org_id:String} = '' OR id IN (SELECT id FROM alerts WHERE org_id = {org_id:String}))
SETTINGS mutations_sync = 2
