"""What schemathesis cannot know: which KMSs there are, and that a key stream has two ends."""

import json
import os
import re
import urllib.error
import urllib.request
import zlib

import schemathesis

# The KMS at this end and the one at the other end, the API at the other end, and where answers are counted.
HERE, THERE = os.environ["QKD_KMS"].split(" ")
OTHER = os.environ["QKD_OTHER_API"]
TALLY = open(os.environ["QKD_TALLY"], "a", encoding="ascii", buffering=1)

# How the daemon says that a request is not formed as it must be.
FORM = re.compile(r"is missing: it must be|must be an absolute URI as a string|; it is (?!none of the configured)|the body")


def is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def names_kms(case):
    return isinstance(case.body, dict) and {case.body.get("source"), case.body.get("destination")} == {HERE, THERE}


def whole(value):
    """The same with whole numbers written as such: JSON Schema takes 1.0 for one, and has no way to say what the module's document
    says in words, that it must be written without a fraction."""
    if isinstance(value, dict):
        return {name: whole(member) for name, member in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


@schemathesis.hook
def before_call(context, case, kwargs):
    if is_positive(case):
        case.body = whole(case.body)
    # Three of four opens are between KMSs that there are; which, depends on the case alone.
    if case.operation.path.endswith("/open-connect") and is_positive(case) and isinstance(case.body, dict):
        dice = zlib.crc32(json.dumps(case.body, sort_keys=True).encode())
        if dice % 4:
            case.body["source"], case.body["destination"] = (HERE, THERE) if dice & 4 else (THERE, HERE)


@schemathesis.hook
def after_call(context, case, response):
    TALLY.write(f"{case.operation.method.upper()} {case.operation.path} {response.status_code}\n")
    if case.operation.path.endswith("/open-connect") and response.status_code in (200, 201):
        # The other KMS joins, so that key flows once get-key is asked.
        opened = json.loads(response.content)
        body = {"source": HERE, "destination": THERE, "key_stream_id": opened["key_stream_id"], "qos": {}}
        for path in ("open-connect", "get-key"):
            call = urllib.request.Request(
                f"{OTHER}/api/v1/kms/etsi004/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                urllib.request.urlopen(call, timeout=20).close()
            except urllib.error.HTTPError as refusal:
                refusal.close()


@schemathesis.check
def right_form_is_not_refused(context, response, case):
    """A request that the document allows is refused for what it names, never for its form."""
    if not is_positive(case) or response.status_code != 400:
        return
    answer = json.loads(response.content)
    assert answer["status"] == 8 or not FORM.search(answer["detail"]), f"refused for its form: {answer['detail']}"
    if names_kms(case):
        assert case.body["key_stream_id"] is not None, f"an open between known KMSs is refused: {answer['detail']}"


@schemathesis.check
def the_module_does_not_contradict_itself(context, response, case):
    """No answer tells of a fault of the daemon."""
    assert b"contradicts itself" not in response.content
