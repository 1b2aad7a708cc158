-- Takes out what still names a user or an address, replaced versions too.
DELETE FROM alerts
WHERE scope = if({what:String} = 'user', 'user', 'client_ip') AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
