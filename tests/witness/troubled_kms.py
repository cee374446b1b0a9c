#!/usr/bin/env python3
"""KMSs that refuse, hang up, stay away and close: what the public interface promises them then.

Started and told its task like `two_kms.py`. Prints `restart B` once, and goes on when it reads the new URL of module B.
"""
import json
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is

from two_kms import DEADLINE, Kms, agree, judge, main


class Troubled(Kms):
    """Refuses chunks as the test at hand says, and remembers every attempt."""

    def __init__(self, name):
        self.attempts = []  # (time, stream, status, index)
        self.rule = None
        super().__init__(name)

    def refusal(self, message):
        stream = message["metadata"]["buffer"]["key_stream_id"]
        with self.lock:
            self.attempts.append((time.monotonic(), stream, message["status"], message["index"]))
            refusal = self.rule and message["status"] == 0 and self.rule(message["index"])
            self.lock.notify_all()
        return refusal

    def until(self, what, condition):
        end = time.monotonic() + DEADLINE
        with self.lock:
            while not condition():
                left = end - time.monotonic()
                assert left > 0, f"{self.name}: no {what} in time"
                self.lock.wait(left)

    def refuse(self, count, refusal):
        """Refuses the next chunk, and whatever is on its way with it; answers when and which it was."""
        refused = []

        def rule(index):
            if len(refused) < count:
                refused.append((time.monotonic(), index))
                return refusal
            return None

        with self.lock:
            self.rule = rule
        self.until("refusal", lambda: len(refused) == count)
        return refused

    def notices_of(self, stream):
        return [(status, index) for of, status, index in self.notices if of == stream]


def run(task, a, b):
    uri_a, uri_b = task["kms_a"], task["kms_b"]

    def begin(**qos):
        status, answer = a.open_in_time(uri_a, uri_b, None, **qos)
        assert status == 201, answer
        stream = answer["key_stream_id"]
        status, answer = b.open_in_time(uri_a, uri_b, stream)
        assert (status, answer["status"]) == (201, 0), answer
        a.get_key(stream, "GET", 205)
        b.get_key(stream, "POST", 205)
        b.wait_for(stream, 5)
        return stream

    def more(stream, count=20):
        with b.lock:
            had = len(b.chunks[stream])
        b.wait_for(stream, had + count)

    def finish(stream):
        """Both have the same, without a gap; order is that of the first transmission, as several are on their way."""
        for kms in (a, b):
            with kms.lock:
                first = list(dict.fromkeys(i for _, of, status, i in kms.attempts if of == stream and not status))
                assert first == list(range(len(first))), first
                kms.order[stream] = sorted(kms.chunks[stream])
        agree(a, b, stream, 32)
        a.close(stream)
        b.close(stream)

    def busy_is_left_alone_and_gets_the_same_chunk_again():
        stream = begin(key_chunk_size=32, max_bps=8000)
        (when, index), = b.refuse(1, (503, ("Retry-After", "1")))
        more(stream)
        again = next(at for at, of, _, i in b.attempts if of == stream and i == index and at > when)
        assert again - when > 0.9, "Retry-After was not honoured"
        finish(stream)

    def refused_waits_for_the_next_get_key():
        stream = begin(key_chunk_size=32, max_bps=8000)
        (_, index), = b.refuse(1, (400,))
        with a.lock:
            had = len(a.chunks[stream])
        a.wait_for(stream, had + 30)  # time in which the other end goes on
        tries = [i for _, of, _, i in b.attempts if of == stream].count(index)
        assert tries == 1, "a refused chunk was sent again without get-key"
        b.get_key(stream, "GET", 205)
        more(stream)
        finish(stream)

    def hung_up_on_loses_nothing():
        stream = begin(key_chunk_size=32, max_bps=32000)
        b.refuse(3, "hang up")
        more(stream)
        finish(stream)

    def away_longer_than_the_time_to_live_is_told_what_it_missed():
        stream = begin(key_chunk_size=32, max_bps=8000, ttl=1)
        with b.lock:
            last = max(b.chunks[stream])
            b.rule = lambda _: (503,)
        with a.lock:
            had = len(a.chunks[stream])
        a.wait_for(stream, had + 31 * 4)  # four seconds of key at 8 kbit/s
        with b.lock:
            b.rule = None
        more(stream)
        b.until("notice", lambda: any(status == 2 for status, _ in b.notices_of(stream)))
        order = b.order[stream]
        assert order == sorted(order), "chunks came out of order"
        assert set(range(last, max(order))) - set(order), "nothing expired"
        common = a.chunks[stream].keys() & b.chunks[stream].keys()
        assert all(a.chunks[stream][i] == b.chunks[stream][i] for i in common), "an index has two keys"
        a.close(stream)
        b.close(stream)

    def close_is_final_and_told_to_the_other_end_once():
        stream = begin(key_chunk_size=32, max_bps=64000)
        a.close(stream)
        closed = time.monotonic()
        b.until("notice", lambda: b.notices_of(stream))
        at = next(i for i, (_, of, status, _) in enumerate(b.attempts) if of == stream and status)
        before = max(i for _, of, status, i in b.attempts[:at] if of == stream and not status)
        assert b.notices_of(stream) == [(1, before + 1)], (b.notices_of(stream), before)
        b.close(stream)
        assert not [1 for when, of, _, _ in a.attempts if of == stream and when > closed], "key after close"
        for kms in (a, b):
            status, answer = kms.open(uri_a, uri_b, stream)
            assert (status, answer["status"]) == (400, 5), answer

    def a_module_that_is_killed_and_starts_again_goes_on_with_its_streams():
        stream = begin(key_chunk_size=32, max_bps=64000)
        print("restart B", flush=True)
        b.http.close()
        b.connect(json.loads(sys.stdin.readline())["module_b"])
        # Nobody opens anything, and nobody asks for key again.
        for kms in (a, b):
            kms.wait_for(stream, len(kms.chunks[stream]) + 50)
        finish(stream)

    def no_trouble(kms):
        kms.rule = None

    return judge((
        busy_is_left_alone_and_gets_the_same_chunk_again,
        refused_waits_for_the_next_get_key,
        hung_up_on_loses_nothing,
        away_longer_than_the_time_to_live_is_told_what_it_missed,
        close_is_final_and_told_to_the_other_end_once,
        a_module_that_is_killed_and_starts_again_goes_on_with_its_streams,
    ), a, b, no_trouble)


if __name__ == "__main__":
    main(Troubled, run)
