"""Input that a client must bear: invalid frames, answers to nobody, events with nonsense in them."""

HOSTILE = [
    "", "null", "5", "[]", "\"x\"", "{", "{}", '{"type":5}', '{"type":null}', "?",
    '{"type":"__proto__"}', '{"type":"constructor"}', '{"type":"hasOwnProperty","ref":1}',
    '{"type":"reply"}', '{"type":"reply","ref":99}', '{"type":"reply","ref":{}}', '{"type":"item","ref":1}',
    '{"type":"error"}', '{"type":"error","ref":"x"}', '{"type":"end","ref":0}', '{"type":"error","ref":null,"code":7}',
    '{"type":"joined"}', '{"type":"joined","topic":{},"offset":1,"epoch":"e","heartbeat":"x"}',
    '{"type":"joined","topic":"t","offset":-1,"epoch":"e","heartbeat":1e-9}',
    '{"type":"joined","topic":"t","heartbeat":1e308}',
    '{"type":"message","topic":"t","offset":1e400,"epoch":"e"}',
    '{"type":"message","data":{"type":{}}}', '{"type":"message"}',
    '{"type":"resync"}', '{"type":"heartbeat","interval":-1}', '{"type":"heartbeat","interval":[]}',
    '{"type":"auth_expiring"}', '{"type":"auth_expiring","expires_in":1e400}',
    '{"type":"auth_expiring","expires_in":[]}',
    '{"type":"presence_diff"}', "[" * 5000 + "]" * 5000, '{"type":"x","pad":"' + "x" * (1 << 20) + '"}',
]  # fmt: skip
