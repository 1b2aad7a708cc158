-- Takes out what the rules about identity remember of an address.
DELETE FROM watch_profiles
WHERE scope = if({what:String} = 'user', 'user', 'client_ip') AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
