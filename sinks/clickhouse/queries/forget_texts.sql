-- Rewrites alerts of others that name a user or an address in their words: once more where two stand side by side.
ALTER TABLE alerts UPDATE
    event = replaceRegexpAll(replaceRegexpAll(event, {word:String}, '\\1(forgotten)\\3'), {word:String}, '\\1(forgotten)\\3'),
    text = replaceRegexpAll(replaceRegexpAll(text, {word:String}, '\\1(forgotten)\\3'), {word:String}, '\\1(forgotten)\\3'),
    data = replaceRegexpAll(replaceRegexpAll(data, {word:String}, '\\1(forgotten)\\3'), {word:String}, '\\1(forgotten)\\3')
WHERE match(event, {word:String}) AND ({org_id:String} = '' OR org_id = {org_id:String})
SETTINGS mutations_sync = 2
