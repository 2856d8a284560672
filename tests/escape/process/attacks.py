"""Attacks of code that has got out of the language: plain Python with ctypes inside a confined child, named by what must come of each.

Each leaves what it won in `loot`. Those of KILLED must not get that far: the first forbidden call is the last. Those of
FAILING end by an error or a limit. Those of EMPTY_HANDED may go on, but find and change nothing outside.
"""

from __future__ import annotations

import platform
import textwrap

KILLED = {
    # Files
    "a_secret_file_is_not_read": "loot = open(SECRET_FILE).read()",
    "a_secret_file_is_not_read_by_a_raw_call": "loot = call('open', SECRET_FILE.encode(), 0)",
    "a_secret_file_is_not_read_by_openat2": "how = ctypes.create_string_buffer(24)\nloot = raw(437, -100, SECRET_FILE.encode(), how, 24)",
    "a_file_is_not_made": "loot = open(DIRECTORY + '/made', 'w')",
    "a_file_is_not_made_by_creat": "loot = call('creat', (DIRECTORY + '/made').encode(), 0o666)",
    "a_file_is_not_appended_to": "loot = os.open(SECRET_FILE, os.O_WRONLY | os.O_APPEND)",
    "a_file_is_not_truncated": "loot = os.truncate(SECRET_FILE, 0)",
    "a_file_is_not_removed": "loot = os.unlink(SECRET_FILE)",
    "a_file_is_not_renamed": "loot = os.rename(SECRET_FILE, DIRECTORY + '/made')",
    "a_link_is_not_made": "loot = os.symlink('/etc/passwd', DIRECTORY + '/made')",
    "a_hard_link_is_not_made": "loot = os.link(SECRET_FILE, DIRECTORY + '/made')",
    "a_folder_is_not_made": "loot = os.mkdir(DIRECTORY + '/made')",
    "a_device_is_not_made": "loot = os.mknod(DIRECTORY + '/made', 0o600 | 0o020000, os.makedev(1, 1))",
    "a_named_pipe_is_not_made": "loot = os.mkfifo(DIRECTORY + '/made')",
    "a_folder_is_not_listed": "loot = os.listdir(DIRECTORY)",
    "a_folder_is_not_left": "loot = os.chdir('/')",
    "a_file_is_not_looked_at": "loot = os.stat(SECRET_FILE)",
    "the_mode_of_a_file_is_not_changed": "loot = os.chmod(SECRET_FILE, 0o777)",
    "extended_attributes_are_not_set": "loot = os.setxattr(SECRET_FILE, 'user.x', b'1')",
    "a_folder_is_not_watched": "loot = libc.inotify_init1(0)",
    "everything_is_not_watched": "loot = call('fanotify_init', 0, 0)",
    "the_root_is_not_changed": "loot = os.chroot('/tmp')",
    "the_root_is_not_pivoted": "loot = call('pivot_root', b'/', b'/')",
    "nothing_is_mounted": "loot = libc.mount(b'none', DIRECTORY.encode(), b'tmpfs', 0, None)",
    "nothing_is_mounted_by_the_new_calls": "loot = raw(430, b'tmpfs', 0)",
    "no_handle_of_a_file_is_opened": "loot = call('open_by_handle_at', -100, ctypes.create_string_buffer(64), 0)",
    "the_environment_of_the_host_is_not_read": "loot = open(f'/proc/{HOST}/environ', 'rb').read()",
    "the_environment_of_the_fork_server_is_not_read": "loot = open(f'/proc/{FORK_SERVER}/environ', 'rb').read()",
    "the_memory_of_the_host_is_not_opened": "loot = os.open(f'/proc/{HOST}/mem', os.O_RDWR)",
    "its_own_memory_is_not_opened_as_a_file": "loot = os.open('/proc/self/mem', os.O_RDWR)",
    "its_own_maps_are_not_read": "loot = open('/proc/self/maps').read()",
    "a_library_is_not_loaded": "loot = ctypes.CDLL(DIRECTORY + '/library.so')",
    "a_module_is_not_loaded_from_a_file": "sys.meta_path.append(importlib.machinery.PathFinder)\nsys.path.append(DIRECTORY)\nsys.path_hooks.append(importlib.machinery.FileFinder.path_hook((importlib.machinery.SourceFileLoader, ['.py'])))\nimport wsgiref\nloot = wsgiref",
    # Network
    "no_connection_is_made": "loot = socket.create_connection(('127.0.0.1', PORT), 1)",
    "no_datagram_is_sent": "loot = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'loot', ('127.0.0.1', UDP))",
    "no_connection_is_made_to_a_unix_socket": "loot = socket.socket(socket.AF_UNIX).connect(UNIX)",
    "no_connection_is_made_to_an_abstract_socket": "loot = socket.socket(socket.AF_UNIX).connect(ABSTRACT)",
    "no_netlink_socket_is_made": "loot = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "no_packet_socket_is_made": "loot = call('socket', 17, 3, 768)",
    "no_vsock_is_made": "loot = call('socket', 40, 1, 0)",
    "no_pair_of_sockets_is_made": "loot = socket.socketpair()",
    "no_name_is_looked_up": "loot = socket.getaddrinfo('localhost', PORT)",
    "the_name_of_the_machine_is_not_told": "loot = socket.gethostname()",
    "no_port_is_listened_on": "loot = socket.create_server(('127.0.0.1', 0))",
    "the_socket_to_the_host_is_not_connected_elsewhere": "loot = libc.connect(3, b'\\1\\0' + UNIX.encode() + b'\\0', 2 + len(UNIX) + 1)",
    "no_descriptor_is_sent_to_the_host": "loot = socket.send_fds(connection, [b'x'], [0, 1, 2])",
    "no_descriptor_is_received": "loot = socket.recv_fds(connection, 1, 10)",
    "no_urgent_data_is_sent": "loot = connection.send(b'x', socket.MSG_OOB)",
    "no_urgent_data_is_received": "loot = connection.recv(1, socket.MSG_OOB | socket.MSG_DONTWAIT)",
    "the_socket_is_not_shut_down_by_another_call": "loot = connection.shutdown(socket.SHUT_RD)",
    "options_of_the_socket_are_not_set": "loot = connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)",
    "who_is_at_the_other_end_is_not_told": "loot = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)",
    # Descriptors
    "nothing_is_written_to_another_descriptor": "loot = [os.write(number, b'loot') for number in range(100) if number != 2]",
    "nothing_is_written_to_standard_output": "loot = os.write(1, b'loot')",
    "nothing_is_read_from_another_descriptor": "loot = os.read(0, 100)",
    "no_descriptor_is_duplicated": "loot = os.dup2(3, 4)",
    "no_pipe_is_made": "loot = os.pipe()",
    "no_file_in_memory_is_made": "loot = os.memfd_create('x')",
    "no_secret_memory_is_made": "loot = raw(447, 0)",
    "no_event_counter_is_made": "loot = os.eventfd(0)",
    "no_poller_is_made": "loot = select.epoll()",
    "nothing_is_controlled_by_ioctl": "loot = fcntl.ioctl(2, 0x5412, b'x')",
    "no_terminal_is_opened": "loot = pty.openpty()",
    "the_socket_is_not_mapped": "loot = mmap.mmap(3, 4096)",
    # Processes
    "no_process_is_forked": "loot = os.fork()",
    "no_process_is_forked_by_vfork": "loot = call('vfork')",
    "no_process_is_cloned": "loot = call('clone', 17, 0, 0, 0, 0)",
    "no_process_is_cloned_by_clone3": "loot = raw(435, ctypes.create_string_buffer(88), 88)",
    "no_thread_is_started": "thread = threading.Thread(target=print)\nthread.start()\nloot = thread",
    "no_program_is_executed": "loot = os.execv('/bin/touch', ['touch', DIRECTORY + '/made'])",
    "no_program_is_executed_by_descriptor": "loot = call('execveat', -100, b'/bin/true', 0, 0, 0)",
    "no_program_is_executed_by_the_shell": "loot = os.system(f'touch {DIRECTORY}/made')",
    "no_program_is_executed_by_subprocess": "loot = subprocess.run(['touch', DIRECTORY + '/made'])",
    "no_program_is_spawned": "loot = os.posix_spawn('/bin/touch', ['touch', DIRECTORY + '/made'], {})",
    "the_host_is_not_signalled": "loot = os.kill(HOST, signal.SIGTERM)",
    "the_host_is_not_signalled_by_tgkill": "loot = call('tgkill', HOST, HOST, 15)",
    "the_host_is_not_signalled_by_a_queued_signal": "loot = call('rt_sigqueueinfo', HOST, 15, ctypes.create_string_buffer(128))",
    "the_host_is_not_signalled_by_descriptor": "loot = signal.pidfd_send_signal(3, signal.SIGTERM)",
    "the_fork_server_is_not_killed": "loot = os.kill(FORK_SERVER, signal.SIGKILL)",
    "another_sandbox_is_not_killed": "loot = os.kill(NEIGHBOUR, signal.SIGKILL)",
    "another_sandbox_is_not_stopped": "loot = os.kill(NEIGHBOUR, signal.SIGSTOP)",
    "a_process_of_the_same_user_is_not_killed": "loot = os.kill(VICTIM, signal.SIGKILL)",
    "all_processes_of_the_user_are_not_killed": "loot = os.kill(-1, 0)",
    "another_sandbox_is_not_traced": "loot = libc.ptrace(16, NEIGHBOUR, None, None)",
    "a_process_of_the_same_user_is_not_seized": "loot = libc.ptrace(0x4206, VICTIM, None, None)",
    "the_memory_of_another_sandbox_is_not_read": "loot = libc.process_vm_readv(NEIGHBOUR, vector(), 1, vector(), 1, 0)",
    "the_memory_of_another_sandbox_is_not_written": "loot = libc.process_vm_writev(NEIGHBOUR, vector(), 1, vector(), 1, 0)",
    "the_memory_of_another_process_is_not_advised_on": "loot = raw(440, 3, vector(), 1, 20, 0)",
    "no_descriptor_of_another_process_is_had": "loot = os.pidfd_open(HOST)",
    "no_file_of_another_process_is_had": "loot = raw(438, 3, 3, 0)",
    "processes_are_not_compared": "loot = call('kcmp', HOST, NEIGHBOUR, 0, 0, 0)",
    "the_limits_of_another_process_are_not_changed": "loot = resource.prlimit(NEIGHBOUR, resource.RLIMIT_NOFILE, (0, 0))",
    "its_own_limits_are_not_changed": "loot = resource.setrlimit(resource.RLIMIT_NPROC, (1000, 1000))",
    "the_priority_of_the_host_is_not_changed": "loot = os.setpriority(os.PRIO_PROCESS, HOST, 19)",
    "the_processors_of_another_process_are_not_changed": "loot = os.sched_setaffinity(NEIGHBOUR, {0})",
    "its_own_number_is_not_told": "loot = os.getpid()",
    "its_parent_is_not_told": "loot = os.getppid()",
    "it_does_not_wait_for_children": "loot = os.waitpid(-1, os.WNOHANG)",
    # Rights and namespaces
    "root_is_not_regained": "loot = os.setresuid(0, 0, 0)",
    "the_root_group_is_not_regained": "loot = os.setresgid(0, 0, 0)",
    "groups_are_not_set": "loot = os.setgroups([0])",
    "capabilities_are_not_set": "loot = call('capset', ctypes.create_string_buffer(b'\\x22\\x05\\x08\\x20\\0\\0\\0\\0'), ctypes.create_string_buffer(24))",
    "no_namespace_is_made": "loot = libc.unshare(0x10000000)",
    "no_namespace_is_entered": "loot = libc.setns(3, 0)",
    "it_is_not_made_dumpable_again": "loot = libc.prctl(4, 1, 0, 0, 0)",
    "the_signal_at_its_parents_death_stays": "loot = libc.prctl(1, 0, 0, 0, 0)",
    "the_filter_is_not_replaced": "loot = libc.prctl(22, 2, ctypes.create_string_buffer(16), 0, 0)",
    "the_filter_is_not_replaced_by_seccomp": "loot = raw(317, 1, 8, ctypes.create_string_buffer(16))",
    "landlock_is_not_used_again": "loot = raw(446, 3, 0)",
    "the_personality_is_not_changed": "loot = libc.personality(0x0400000)",
    "the_session_is_not_left": "loot = os.setsid()",
    # Memory
    "no_executable_memory_is_mapped": "loot = mmap.mmap(-1, 4096, prot=7)",
    "memory_is_not_made_executable": "memory = mmap.mmap(-1, 4096, flags=0x22)\nlibc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\nloot = libc.mprotect(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 4096, 5)",
    "memory_is_not_made_executable_by_its_key": "loot = raw(329, 0, 4096, 7, -1)",
    "memory_is_not_shared": "loot = multiprocessing.shared_memory.SharedMemory('loot', True, 4096)",
    "no_shared_segment_is_made": "loot = libc.shmget(0x1234, 4096, 0o1666)",
    "no_semaphore_is_made": "loot = libc.semget(0x1234, 1, 0o1666)",
    "no_message_queue_is_made": "loot = libc.msgget(0x1234, 0o1666)",
    "no_posix_message_queue_is_made": "loot = call('mq_open', b'loot', 0o102, 0o666, 0)",
    "memory_is_not_locked": "loot = libc.mlockall(1)",
    "memory_is_not_merged_with_that_of_others": "memory = mmap.mmap(-1, 4096, flags=0x22)\nloot = memory.madvise(12)",
    "page_faults_are_not_handled_here": "loot = raw(323, 1)",
    "no_code_is_made_for_callbacks": "loot = libc.mmap(None, 4096, 6, 0x22, -1, 0)",
    # Kernel interfaces
    "no_ring_is_set_up": "loot = raw(425, 8, ctypes.create_string_buffer(120))",
    "no_asynchronous_context_is_set_up": "loot = call('io_setup', 8, ctypes.create_string_buffer(8))",
    "no_program_is_loaded_into_the_kernel": "loot = raw(321, 0, ctypes.create_string_buffer(128), 128)",
    "no_counter_of_events_is_opened": "loot = call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0)",
    "no_key_is_made": "loot = raw(248, b'user', b'loot', b'x', 1, -3)",
    "no_keyring_is_joined": "loot = raw(250, 1, None)",
    "the_log_of_the_kernel_is_not_read": "loot = libc.klogctl(3, ctypes.create_string_buffer(100), 100)",
    "no_module_is_loaded_into_the_kernel": "loot = call('init_module', b'x', 1, b'')",
    "the_machine_is_not_restarted": "loot = libc.reboot(0)",
    "the_clock_is_not_set": "loot = time.clock_settime(time.CLOCK_REALTIME, -1)",
    "the_machine_is_not_described": "loot = os.uname()",
    "the_cpu_clock_of_the_host_is_not_read": "loot = time.clock_gettime((~HOST << 3) | 2)",
    "the_soft_timer_is_not_disarmed": "loot = signal.setitimer(signal.ITIMER_PROF, 0)",
    "no_other_timer_is_set": "loot = signal.alarm(1)",
    "no_timer_by_descriptor_is_made": "loot = libc.timerfd_create(1, 0)",
    "the_handler_of_the_soft_timer_is_not_replaced": "loot = signal.signal(signal.SIGPROF, signal.SIG_IGN)",
    "signals_are_not_blocked": "loot = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})",
    "no_other_stack_for_signals_is_set": "loot = call('sigaltstack', 0, 0)",
    "it_does_not_sleep": "loot = time.sleep(0.01)",
    "locks_of_other_kinds_are_not_taken": "loot = call('futex', ctypes.create_string_buffer(4), 6, 0, 0, 0, 0)",
    "a_wait_for_many_locks_is_not_made": "loot = raw(449, ctypes.create_string_buffer(24), 1, 0, 0, 1)",
    "the_segment_registers_are_not_set": "loot = call('arch_prctl', 0x1003, ctypes.create_string_buffer(8))",
    "no_restartable_sequence_is_registered": "loot = raw(334, ctypes.create_string_buffer(64), 32, 0, 0)",
    # Other numbers for the same calls
    "the_x32_numbers_do_not_open_files": "loot = raw(0x40000000 | 2, SECRET_FILE.encode(), 0)",
    "the_x32_numbers_do_not_execute": "loot = raw(0x40000000 | 520, b'/bin/true', 0, 0)",
    "the_x32_numbers_do_not_receive": "loot = raw(0x40000000 | 517, 3, ctypes.create_string_buffer(100), 100, 0x40, 0, 0)",
    "negative_numbers_are_no_calls": "loot = raw(-1)",
    "numbers_beyond_the_table_are_no_calls": "loot = raw(100_000)",
}  # fmt: skip

FAILING = {
    "memory_beyond_the_limit_is_not_had": "loot = mmap.mmap(-1, 4 << 30, flags=0x22)",
    "memory_beyond_the_limit_is_not_had_bit_by_bit": "kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))",
    "an_endless_loop_that_catches_everything_is_ended": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "reading_from_the_host_for_ever_is_ended": "while True:\n    connection.recv(100)",
    "waiting_for_ever_is_ended": "lock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "garbage_to_the_host_ends_the_sandbox": "connection.sendall(b'\\xff' * 100_000)\nwhile True:\n    pass",
    "a_frame_as_large_as_memory_ends_the_sandbox": "connection.sendall(struct.pack('<BII', 17, 0xFFFFFFFF, 0xFFFFFFFF))\nwhile True:\n    pass",
    "answers_for_events_that_it_was_not_given_end_the_sandbox": "row = [10 ** 6, 0, 'forged', 'd', '2026-01-01T00:00:00Z', '', 2, None]\nhead = json.dumps([0, [row]]).encode()\nconnection.sendall(struct.pack('<BII', 17, len(head), 2) + head + b'{}')\nwhile True:\n    pass",
    "calls_for_events_that_it_was_not_given_end_the_sandbox": "head = json.dumps([1, 10 ** 6, 1, 0, 'sleep', [1]]).encode()\nconnection.sendall(struct.pack('<BII', 18, len(head), 0) + head)\nwhile True:\n    pass",
    "a_crash_is_only_its_own": "loot = ctypes.string_at(1)",
    "aborting_is_only_its_own": "loot = os._exit(0)",
    "an_attempt_to_become_the_kernels_problem_by_the_stack_is_only_its_own": "sys.setrecursionlimit(10 ** 9)\ndef again():\n    return [*map(lambda _: again(), [1])]\nloot = again()",
    "an_unknown_module_is_an_error": "import wsgiref\nloot = wsgiref",
}  # fmt: skip

EMPTY_HANDED = {
    "the_environment_is_empty": "loot = dict(os.environ) != {'TZ': 'UTC0'} and dict(os.environ)",
    "the_environment_of_the_c_library_is_empty": "environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')\nloot = [environ[place] for place in range(2)] != [b'TZ=UTC0', None] and 'more'",
    "the_objects_of_the_process_hold_no_secret": "loot = [1 for holder in gc.get_objects() if type(holder) is dict for value in list(holder.values()) if type(value) is str and TERCES[::-1] in value]",
    "scribbling_over_the_page_blames_nobody_else": "page = next(found for found in gc.get_objects() if type(found).__name__ == 'Page')\nfor place in range(len(page._words)):\n    page._words[place] = 0xFFFFFFFF\nloot = None",
}  # fmt: skip
if platform.machine() != "x86_64":  # what is called by its number on x86_64
    KILLED = {name: body for name, body in KILLED.items() if "raw(" not in body and "call(" not in body}

ATTACKS = KILLED | FAILING | EMPTY_HANDED

PREAMBLE = """
import array, ctypes, fcntl, gc, importlib.machinery, inspect, json, mmap, multiprocessing.shared_memory, os, pty, resource
import select, shutil, signal, socket, struct, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = {
    'open': 2, 'clone': 56, 'vfork': 58, 'creat': 85, 'rt_sigqueueinfo': 129, 'sigaltstack': 131, 'pivot_root': 155,
    'arch_prctl': 158, 'init_module': 175, 'futex': 202, 'io_setup': 206, 'tgkill': 234, 'mq_open': 240, 'capset': 126,
    'perf_event_open': 298, 'fanotify_init': 300, 'open_by_handle_at': 304, 'kcmp': 312, 'execveat': 322, 'socket': 41,
}

def raw(number, *arguments):
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return libc.syscall(ctypes.c_long(number), *wide)

def call(name, *arguments):
    return raw(NUMBERS[name], *arguments)

def vector():
    return ctypes.create_string_buffer(16)

connection = next(found for found in gc.get_objects() if isinstance(found, socket.socket) and found.fileno() == 3)
"""


def attacking_app(body: str, constants: dict[str, object]) -> str:
    """An app that attacks when an event named `bad` comes, and marks the others."""
    defined = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    return (
        f"{PREAMBLE}\n{defined}\ndef processEvent(event, meta):\n    if event['event'] == 'bad':\n"
        f"{textwrap.indent(body, ' ' * 8)}\n        if loot:\n            event['properties']['loot'] = repr(loot)\n"
        "    event['properties']['calm'] = True\n    return event\n"
    )
