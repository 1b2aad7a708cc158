-- Policies and members of a user or an address: ids are organisation/kind/name/..., behind "member:" of a member.
    splitByChar('/', replaceOne(policy_id, 'member:', ''))[2] = if({what:String} = 'user', 'user', 'client_ip')
    AND splitByChar('/', replaceOne(policy_id, 'member:', ''))[3] = {name_key:String}
    AND ({org_id:String} = '' OR splitByChar('/', replaceOne(policy_id, 'member:', ''))[1] = {org_key:String})
