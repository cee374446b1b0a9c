#!/usr/bin/env python3
"""A host of a simulated card, written from contract/CONTRACT.md and the public vfio-user protocol alone.

It shares no code with the project. Started with the path of a card's socket, of a pair with positional test key and
blocks of 65536 octets, it leads the card through its life and its misfortunes, and ends with `N passed, N failed`.
"""
import errno
import os
import struct
import sys

sys.dont_write_bytecode = True  # the sources' folder stays as it is
from card_numbers import *
from judging import judge
from raw_host import AREA, AREA_SIZE, CONFIG, EVENT_AREA, SLOTS, SLOT_SIZE, Client, Host

def run(path):
    def with_host(test):
        def run_it():
            host = Host(path)
            try:
                test(host)
            finally:
                host.close()

        run_it.__name__ = test.__name__
        return run_it

    def the_protocol_tells_a_pci_function_with_the_contracts_regions():
        client = Client(path)
        reply, _ = client.call(4, struct.pack("<IIII", 16, 0, 0, 0))
        assert struct.unpack("<IIII", reply) == (16, 3, 9, 5), "flags RESET and PCI, regions, interrupts"
        for index in range(9):
            reply, fds = client.call(5, struct.pack("<IIIIQQ", 64, 0, index, 0, 0, 0))
            size = struct.unpack_from("<Q", reply, 16)[0]
            assert size == {0: 0x10000, 2: 0x1000, 7: 4096}.get(index, 0), (index, size)
            assert len(fds) == (index == 0), "only the registers can be mapped"
            if index == 0:
                assert struct.unpack_from("<IIIIQQ", reply, 0)[1:4] == (15, 0, 32), reply
                assert struct.unpack_from("<HHIIIQQ", reply, 32) == (1, 1, 0, 1, 0, 0, 0x10000), reply
            for fd in fds:
                os.close(fd)
        for index, count in enumerate((0, 0, 2, 1, 1)):
            reply, _ = client.call(7, struct.pack("<IIII", 16, 0, index, 0))
            assert struct.unpack("<IIII", reply) == (16, 1 if count else 0, index, count)
        client.close()

    @with_host
    def configuration_space_is_that_of_the_contract(host):
        space = host.client.read(CONFIG, 0, 4096)
        half = lambda at: struct.unpack_from("<H", space, at)[0]
        word = lambda at: struct.unpack_from("<I", space, at)[0]
        assert (half(0), half(2), half(0x2C), half(0x2E)) == (0x5144, 1, 0x5144, 1), "PCI-1"
        assert (space[8], word(8) >> 8, space[0x0E]) == (1, 0x108000, 0), "revision, class, header type"
        assert (word(0x10) & 15, word(0x14), word(0x18) & 15, word(0x1C)) == (4, 0, 4, 0), "64-bit memory"
        assert not any(space[0x20:0x2C]) and word(0x30) == 0 and space[0x3D] == 0, "no other BAR, ROM, INTx"
        for bar, size in ((0x10, 0x10000), (0x18, 0x1000)):
            host.client.write(CONFIG, bar, b"\xFF" * 8)
            shown = int.from_bytes(host.client.read(CONFIG, bar, 8), "little")
            assert (shown & ~15 ^ (1 << 64) - 1) + 1 == size, f"BAR at {bar:#x} shows {shown:#x}"
        found, at = {}, space[0x34]
        while at:
            assert space[at] not in found and at % 4 == 0
            found[space[at]], at = at, space[at + 1]
        assert set(found) >= {0x01, 0x10, 0x11} and 0x05 not in found, "PCI-5, PCI-7"
        power, express, msix = found[0x01], found[0x10], found[0x11]
        assert half(power + 4) & 0x0B == 0x08, "D0, No_Soft_Reset"
        assert half(express + 2) >> 4 & 15 == 0 and word(express + 4) & 1 << 28, "endpoint, function-level reset"
        assert (half(msix + 2) & 0x7FF, word(msix + 4), word(msix + 8)) == (1, 0x002, 0x802), "PCI-4, PCI-5"
        assert word(0x100) & 0xFFFF == 3, "Device Serial Number"
        assert space[0x104:0x10C] == struct.pack("<Q", host.registers[SERIAL]), "PCI-7"

    @with_host
    def a_worked_life(host):
        registers = host.registers
        assert (registers[MAGIC], registers[VERSION]) == (0x31444B51, 0x00010000)
        assert registers[FEATURES] & ~(1 << 63) & ~3 == 0 and registers[FEATURES] >> 63 == 1, "VER-3, TEST_KEY"
        assert registers[SERIAL] and registers[BLOCK_MAX] == 65536 and registers[ROLE] == 1
        assert all(registers[register] == 0 for register in HOST), "REG-7"
        host.until(lambda: registers[RETAINED_BLOCKS] >= 2, "no block was ever distilled")
        host.ready()
        host.signalled(1)
        assert host.command(RAISE, 0) == DONE
        host.signalled(0)
        host.start()

        replayed = []
        while True:
            kind, session, sequence, _, block = host.event()
            if kind == REPLAY_END:
                break
            assert kind == BLOCK and block[0], "before REPLAY_END come replayed blocks only"
            assert not replayed or replayed[-1] < (session, sequence)
            replayed.append((session, sequence))
        assert len(replayed) >= 2
        current = host.event(SESSION_EVENT)[1]
        assert current == registers[SESSION] and current >= replayed[-1][0]
        assert host.event(LINK)[3] == DISTILLING

        beat, names = registers[HEARTBEAT], []
        for serial in range(1, 4):
            host.arm(serial)
            host.signalled(0)
            kind, session, sequence, _, block = host.event(BLOCK)
            assert not block[0] and session == current, "fresh blocks of the current session"
            names.append((session, sequence))
        assert replayed[-1] < names[0] and names == sorted(set(names))
        assert registers[HEARTBEAT] != beat, "ST-10"

        cell = registers[CELL]
        registers[CELL_STORE] = cell + 42
        host.wait(CELL, cell + 42)
        registers[CELL_STORE] = cell + 41
        host.acknowledge(replayed[0], names[-1])
        assert registers[CELL] == cell + 42, "CEL-1"
        assert host.command(STOP) == DONE and registers[STATE] == STOPPED
        retained = registers[RETAINED_BYTES]
        assert registers[RETAINED_BLOCKS] * 65536 >= retained

        # What was acknowledged never comes again; what was not does.
        host.start()
        kind, session, sequence, _, _ = host.event()
        assert kind == REPLAY_END or (session, sequence) > names[-1]
        assert host.command(STOP) == DONE

    @with_host
    def a_function_reset_in_mid_transfer_ends_dma_and_loses_no_key(host):
        for way in ("device control", "message"):
            host.until(lambda: host.registers[RETAINED_BLOCKS] >= 2, "no block was ever distilled")
            host.ready()
            host.start()
            first = host.event(BLOCK)[1:3]
            if way == "message":
                host.client.call(13)
                host.tag = 0
                assert host.client.read(CONFIG, 4, 2) == b"\0\0", "FLR-4"
                host.client.write(CONFIG, 4, bytes([2, 0]))
            else:
                host.function_level_reset()
            after = bytes(host.memory)
            assert all(host.registers[register] == 0 for register in HOST), "REG-7"
            assert host.registers[COMMAND_DONE] == 0
            host.wait(STATE, STOPPED)
            beat = host.registers[HEARTBEAT]
            host.until(lambda: host.registers[HEARTBEAT] != beat, "no heartbeat")
            assert host.memory[:] == after, f"DMA after a reset by {way}"
            host.client.unmap(AREA, AREA_SIZE)
            host.memory[:] = bytes(AREA_SIZE)
            host.ready()
            host.start()
            assert host.event(BLOCK)[1:3] == first, "RET-1: the same block comes first again"
            assert host.command(STOP) == DONE
            host.client.unmap(AREA, AREA_SIZE)

    def refuses_dma(host, untouched=True):
        errors = host.registers[DMA_ERRORS]
        assert host.command(SELF_TEST) == FAILED
        assert (host.registers[STATE], host.registers[FAULT]) == (FAULTED, FAULT_DMA), host.story()
        host.until(lambda: host.registers[DMA_ERRORS] > errors, "DMA_ERRORS does not count it")
        if untouched:
            assert not any(host.memory[:SLOT_SIZE])
        # The cause does not last over a function reset.
        host.function_level_reset()
        host.wait(STATE, STOPPED)
        assert host.registers[FAULT] == 0

    @with_host
    def dma_to_an_address_never_mapped_is_a_fault(host):
        host.master(True)
        host.rings()
        refuses_dma(host)

    @with_host
    def dma_beyond_the_end_of_a_mapping_is_a_fault(host):
        # The pattern of 4096 octets begins in the mapping's last page and would end behind it.
        host.client.map(AREA - 0x2000, 0x2000, 0, [host.file])
        host.master(True)
        host.rings(SLOT_BASE=AREA)
        refuses_dma(host)
        host.client.map(AREA, 0x1000, 0x2000, [host.file])
        host.master(True)
        host.rings(SLOT_BASE=AREA - 0x1000)
        assert host.command(SELF_TEST) == DONE, "all of it lies within"
        assert host.memory[0x1000:0x2000] == self_test_pattern()
        host.memory[:0x3000] = bytes(0x3000)

    @with_host
    def a_block_that_does_not_fit_its_mapping_is_a_fault(host):
        host.until(lambda: host.registers[RETAINED_BYTES] > 0x10000, "no block was ever distilled")
        # Everything but the second page of slot 0.
        host.client.map(AREA, 0x1000, 0, [host.file])
        host.client.map(AREA + 0x2000, AREA_SIZE - 0x2000, 0x2000, [host.file])
        host.master(True)
        host.rings()
        host.start()
        host.wait(STATE, FAULTED)
        assert host.registers[FAULT] == FAULT_DMA
        assert not any(host.memory[EVENT_AREA:EVENT_AREA + 64]), "no event tells of it"

    @with_host
    def dma_after_unmap_is_a_fault(host):
        host.ready()
        assert host.client.refused(3, struct.pack("<IIQQ", 24, 0, AREA, 0x1000)) == errno.EINVAL, "cuts a mapping"
        host.client.unmap(AREA, AREA_SIZE)
        nothing = host.client.call(3, struct.pack("<IIQQ", 24, 0, AREA, AREA_SIZE))[0]
        assert struct.unpack("<IIQQ", nothing) == (24, 0, AREA, 0), "0 octets were unmapped"
        refuses_dma(host)
        host.ready()
        host.client.call(3, struct.pack("<IIQQ", 24, 2, 0, 0))
        refuses_dma(host)

    @with_host
    def dma_while_running_after_unmap_is_a_fault(host):
        host.ready()
        host.start()
        host.client.unmap(AREA, AREA_SIZE)
        host.wait(STATE, FAULTED)
        assert host.registers[FAULT] == FAULT_DMA

    @with_host
    def dma_with_bus_mastering_off_is_a_fault(host):
        host.ready()
        host.master(False)
        refuses_dma(host)

    @with_host
    def dma_where_writing_is_not_allowed_is_a_fault(host):
        host.client.map(AREA, AREA_SIZE, 0, [host.file], flags=1)
        host.master(True)
        host.rings()
        refuses_dma(host)

    @with_host
    def neighbouring_mappings_are_crossed_where_both_are_there(host):
        for page in range(AREA_SIZE // 0x1000):
            # In reverse, so that neighbours by address are far apart in the file.
            host.client.map(AREA + page * 0x1000, 0x1000, AREA_SIZE - (page + 1) * 0x1000, [host.file])
        host.master(True)
        host.rings(SLOT_BASE=AREA, SLOT_COUNT=SLOTS)
        assert host.command(SELF_TEST) == DONE
        assert host.memory[AREA_SIZE - 0x1000:] == self_test_pattern()
        host.client.unmap(AREA, AREA_SIZE)

    @with_host
    def wrong_commands_do_nothing_and_say_so(host):
        assert host.command(99) == UNKNOWN_OPCODE
        assert host.command(STOP) == WRONG_STATE
        assert host.command(START) == BAD_CONFIGURATION, "no rings were named"
        assert host.command(RAISE, 2) == BAD_CONFIGURATION
        assert host.command(ZEROIZE, 1) == BAD_CONFIGURATION
        host.map()
        host.master(True)
        for wrong in (dict(SLOT_BASE=0), dict(SLOT_BASE=AREA + 64), dict(EVENT_BASE=AREA), dict(ACK_BASE=AREA + 0x1000),
                      dict(SLOT_BYTES=0x10000), dict(SLOT_BYTES=SLOT_SIZE + 64), dict(SLOT_COUNT=63), dict(SLOT_COUNT=1),
                      dict(SLOT_COUNT=1 << 17), dict(EVENT_COUNT=32), dict(ACK_COUNT=100),
                      dict(EVENT_BASE=(1 << 64) - 0x1000)):
            host.rings(**wrong)
            assert host.command(START) == BAD_CONFIGURATION, wrong
        host.rings()
        assert host.command(START, 1) == BAD_CONFIGURATION, "CMD-11"
        assert host.registers[STATE] == STOPPED
        host.start()
        assert host.command(START) == WRONG_STATE and host.command(SELF_TEST) == WRONG_STATE
        # CMD-2: a tag that was taken is not taken again.
        done = host.registers[COMMAND_DONE]
        host.registers[COMMAND] = host.tag << 16 | STOP
        beat = host.registers[HEARTBEAT]
        host.until(lambda: host.registers[HEARTBEAT] != beat, "no heartbeat")
        assert (host.registers[COMMAND_DONE], host.registers[STATE]) == (done, RUNNING)
        host.registers[SLOT_CREDIT] = SLOTS * 1000
        host.wait(STATE, FAULTED)
        assert host.registers[FAULT] == FAULT_RING, "RNG-7"

    def malformed_messages_are_refused_and_the_next_client_is_served():
        client = Client(path, agree=False)
        assert client.refused(4, struct.pack("<IIII", 16, 0, 0, 0)) == errno.EINVAL, "before a version"
        assert client.is_closed()
        for body in (b"", b"\0\0", struct.pack("<HH", 1, 0), b"\0\0\0\0{}", b"\0\0\0\0{]\0"):
            client = Client(path, agree=False)
            assert client.refused(1, body) == errno.EINVAL, body
            assert client.is_closed()
        for size in (0, 15, 1 << 20, 0xFFFFFFFF):
            client = Client(path)
            client.send(4, b"", size=size)
            assert client.receive()[2] == errno.EINVAL
            assert client.is_closed()
        client = Client(path)
        for command in (0, 6, 11, 12, 14, 15, 16, 999):
            assert client.refused(command, bytes(32)) == errno.EOPNOTSUPP, command
        for command in (2, 3, 4, 5, 7, 8, 9, 10, 13):
            for size in (1, 7, 31, 33, 65536):
                assert client.refused(command, bytes(size)) in (errno.EINVAL, errno.EOPNOTSUPP), (command, size)
        for region, offset, count in ((0, 0x10000, 4), (0, 0xFFFE, 4), (CONFIG, 4095, 2), (1, 0, 4), (9, 0, 4),
                                      (0, (1 << 64) - 4, 8), (CONFIG, 0, 0), (CONFIG, 0, 0xFFFFFFFF)):
            access = struct.pack("<QII", offset, region, count)
            assert client.refused(9, access) == errno.EINVAL, (region, offset, count)
        file = os.memfd_create("small", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, 0x1000)
        for iova, size, offset in ((AREA, 0x2000, 0), (AREA, 0, 0), (AREA + 1, 0x1000, 0), (AREA, 0x1000, 0x1000),
                                   (0xFFFFFFFFFFFFF000, 0x1000, 0), (AREA, 0x1000, 0xFFFFFFFFFFFFF000)):
            request = struct.pack("<IIQQQ", 32, 3, offset, iova, size)
            assert client.refused(2, request, [file]) == errno.EINVAL, (iova, size, offset)
        client.map(AREA, 0x1000, 0, [file])
        assert client.refused(2, struct.pack("<IIQQQ", 32, 3, 0, AREA, 0x1000), [file]) == errno.EEXIST
        assert client.refused(8, struct.pack("<IIIII", 20, 4 | 1 << 5, 2, 0, 1), [file]) == errno.EINVAL, "no eventfd"
        os.close(file)
        # Without reply: nothing comes back, not even a refusal, and the next answer is the next message's.
        client.send(999, b"", flags=0x10)
        client.send(10, struct.pack("<QII", 4, CONFIG, 2) + b"\x02\0", flags=0x10)
        assert client.read(CONFIG, 4, 2) == b"\x02\0"
        client.close()
        Client(path).close()

    @with_host
    def zeroize_is_proven_and_lasts_until_reset(host):
        host.until(lambda: host.registers[RETAINED_BLOCKS] > 0, "no block was ever distilled")
        before = host.registers[ZEROIZED]
        newest = host.registers[NEWEST_SESSION]
        assert host.command(ZEROIZE) == DONE
        shown = [host.registers[register] for register in (STATE, RETAINED_BLOCKS, RETAINED_BYTES, SESSION, FAULT)]
        assert shown == [ZEROIZED_STATE, 0, 0, 0, 0], shown
        assert host.registers[ZEROIZED] == before + 1
        assert host.command(START) == WRONG_STATE
        host.function_level_reset()
        host.wait(STATE, ZEROIZED_STATE)
        assert host.registers[ZEROIZED] == before + 1, "ZER-4"
        assert host.registers[NEWEST_SESSION] == newest, "SES-7"
        assert host.command(RESET) == DONE
        host.wait(STATE, STOPPED)
        host.until(lambda: host.registers[NEWEST_SESSION] > newest, "no new session begins after RESET")

    return judge((
        the_protocol_tells_a_pci_function_with_the_contracts_regions,
        configuration_space_is_that_of_the_contract,
        a_worked_life,
        a_function_reset_in_mid_transfer_ends_dma_and_loses_no_key,
        dma_to_an_address_never_mapped_is_a_fault,
        dma_beyond_the_end_of_a_mapping_is_a_fault,
        a_block_that_does_not_fit_its_mapping_is_a_fault,
        dma_after_unmap_is_a_fault,
        dma_while_running_after_unmap_is_a_fault,
        dma_with_bus_mastering_off_is_a_fault,
        dma_where_writing_is_not_allowed_is_a_fault,
        neighbouring_mappings_are_crossed_where_both_are_there,
        wrong_commands_do_nothing_and_say_so,
        malformed_messages_are_refused_and_the_next_client_is_served,
        zeroize_is_proven_and_lasts_until_reset,
    ))


if __name__ == "__main__":
    sys.exit(0 if run(sys.argv[1]) else 1)
