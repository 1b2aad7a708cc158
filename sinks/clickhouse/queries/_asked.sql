-- The period that was asked for and what limits it; an empty filter does not. A model is named as sent, used or
-- priced, in any case, with or without its seller's path.
    e.status != 'VOID'
    AND e.event_time >= {since:DateTime64(6, 'UTC')} AND e.event_time < {until:DateTime64(6, 'UTC')}
    AND (empty({orgs:Array(String)}) OR has({orgs:Array(String)}, e.org_id))
    AND ({user_id:String} = '' OR e.user_id = {user_id:String})
    AND ({provider:String} = '' OR e.provider = {provider:String} OR e.provider_id = lower(trimBoth({provider:String})))
    AND ({model:String} = '' OR {model:String} IN (e.model, e.model_sent, e.model_used)
        OR arrayElement(splitByChar('/', lower(trimBoth({model:String}))), -1)
            IN (e.model_id, lower(e.model), lower(e.model_sent), lower(e.model_used)))
    AND ({api_key_id:String} = '' OR e.api_key_id = {api_key_id:String})
    AND ({tag:String} = '' OR arrayExists(tag -> concat(tag.key, '=', tag.value) = {tag:String}, e.tags))
    AND ({label:String} = '' OR {label:String} =
        -- include: label
    )
