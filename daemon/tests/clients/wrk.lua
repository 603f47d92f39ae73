-- A push for wrk.
wrk.method = "POST"
wrk.body = '{"by":"wrk"}'
