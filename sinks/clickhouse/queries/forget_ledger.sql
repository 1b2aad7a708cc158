-- Takes out what still names a user or an address, replaced versions too.
DELETE FROM usage_events
WHERE if({what:String} = 'user', user_id, client_ip) = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
