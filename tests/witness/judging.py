"""How every witness runs its tests and tells how they went."""
import traceback


def judge(tests, before=lambda: None, after=lambda: None):
    """Runs the tests one by one and prints how each went; whether all passed. `before` and `after` enclose each one,
    and an `after` that raises fails it."""
    passed = failed = 0
    for test in tests:
        before()
        try:
            test()
            after()
            passed += 1
            print(f"ok {test.__name__}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {test.__name__}", flush=True)
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed", flush=True)
    return failed == 0
