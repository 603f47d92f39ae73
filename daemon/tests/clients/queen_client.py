"""A published Queen client, unchanged, through what it does most: the daemon's address is the argument."""

import asyncio
import sys

from queen import Queen


def numbers(messages):
    return [message["data"]["n"] for message in messages]


def succeeded(result):
    assert result["success"] is True, result
    return result


async def consume(builder, limit):
    """What a consumer gets until it has `limit` messages."""
    got = []

    async def handle(messages):
        got.extend(numbers(messages if isinstance(messages, list) else [messages]))

    consumer = builder.limit(limit).wait(True).timeout_millis(2000).idle_millis(20000)
    await asyncio.wait_for(consumer.consume(handle), 60)
    return got


async def main(url):
    async with Queen(url=url) as client:
        queue = lambda: client.queue("py")
        made = await queue().config({"lease_time": 30, "retry_limit": 1, "retry_delay": 1}).create()
        assert made["configured"] is True and made["options"]["leaseTime"] == 30, made

        pushed = await queue().partition("p").push([{"data": {"n": n}} for n in range(10)])
        assert [item["status"] for item in pushed] == ["queued"] * 10, pushed

        # Leased, renewed, acknowledged.
        taken = await queue().batch(3).wait(False).pop()
        assert numbers(taken) == [0, 1, 2], taken
        assert (await queue().batch(3).wait(False).pop()) == [], "the partition is leased"
        succeeded(await client.renew(taken[0]))
        succeeded(await client.ack(taken, True))

        # Failed once, then once more than it may: given up.
        taken = await queue().batch(2).wait(True).pop()
        succeeded(await client.ack(taken[0], False, {"error": "boom"}))
        taken = await queue().batch(2).wait(True).pop()
        assert numbers(taken) == [3, 4] and taken[0]["retryCount"] == 1, taken
        assert succeeded(await client.ack(taken[0], False, {"error": "boom"}))["dlq"] is True
        succeeded(await client.ack(taken[1], True))

        assert await consume(queue().batch(2), 5) == [5, 6, 7, 8, 9]
        together = await consume(queue().group("workers").concurrency(3).batch(4), 10)
        assert sorted(together) == list(range(10)), together

        # A group that begins now.
        late = lambda: queue().group("late").subscription_mode("new").wait(False)
        assert await late().pop() == []
        await queue().partition("q").push([{"data": {"n": 100}}])
        assert numbers(await late().pop()) == [100]


asyncio.run(main(sys.argv[1]))
print("done")
