-- wrk script: sends buffered pushes of one message, the same bytes each time. Prints a line of figures at the end.
-- Without a function request(), wrk renders the request only once, which keeps its own CPU time low.

dofile("bench/wrk/figures.lua")

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"items":[{"queue":"bench","payload":{"n":1234567890}}],"bufferMs":100,"bufferMax":100}'
