-- Takes out the lines that a later import has replaced; those of a later one stay, whether or not it is done.
DELETE FROM provider_costs
WHERE provider = {provider:String} AND account = {account:String} AND source = {source:String}
    AND day IN {days:Array(Date)} AND revision < {revision:UInt64}
