-- Takes out what the rules about identity remember of an address, and the series of a user or an address.
DELETE FROM watch_profiles
WHERE scope IN (if({what:String} = 'user', 'user', 'client_ip'), if({what:String} = 'user', 'series/user', 'series/client_ip'))
    AND name = {name:String} AND ({org_id:String} = '' OR org_id = {org_id:String})
