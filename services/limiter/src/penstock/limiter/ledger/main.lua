-- The run itself: expires what is due, and runs the operation.

holds.expire_due()
local reply = operations[ARGV[1]](unpack(cjson.decode(ARGV[4])))
-- What left a rolling window during an operation that wrote no entry of its own.
entries.write('roll', '')
return reply
