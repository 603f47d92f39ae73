-- wrk script: one buffered one-message push, the same bytes to whatever server; a line of figures at the end.
-- wrk renders the request once, since no request() is defined: the load costs the loading core as little as can be.

dofile("bench/wrk/figures.lua")

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"items":[{"queue":"bench","payload":{"n":1234567890}}],"bufferMs":100,"bufferMax":100}'
