-- Whether a call `e` belongs to the scope `name`; a tag is named "key=value".
    AND multiIf(
        {scope:String} = 'org', true,
        {scope:String} = 'group', e.group_id = {name:String},
        {scope:String} = 'user', e.user_id = {name:String},
        {scope:String} = 'api_key', e.api_key_id = {name:String},
        {scope:String} = 'client_ip', e.client_ip = {name:String},
        {scope:String} = 'agent', e.agent = {name:String},
        {scope:String} = 'model', e.model_id = {name:String},
        {scope:String} = 'provider', e.provider_id = {name:String},
        {scope:String} = 'version', e.model = {name:String},
        {scope:String} = 'feature', e.operation_name = {name:String},
        {scope:String} = 'session', e.session_id = {name:String},
        {scope:String} = 'run', e.trace_id = {name:String},
        {scope:String} = 'tag', arrayExists(tag -> concat(tag.key, '=', tag.value) = {name:String}, e.tags),
        false)
