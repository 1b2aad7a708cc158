-- One row when the rules of this price book are known.
SELECT 1 AS known FROM price_rules WHERE price_book = {price_book:String} LIMIT 1
