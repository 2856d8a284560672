"""Hostile programs against the language ring, each named by what must come of it.

`attack()` returns something true when it got through. An error, a refusal to compile or something false is what we want.
Programs that only burn time or memory are not here: the process ends those.
"""

# ruff: noqa: E501 - one program a line or two

from __future__ import annotations

DUNDER_WALKS = {
    "dunder_attributes_are_refused_at_compile_time": "def attack():\n    return ().__class__.__base__.__subclasses__()",
    "dunder_attributes_in_defaults_are_refused": "def attack(x=().__class__):\n    return x",
    "dunder_attributes_in_annotations_are_refused": "def f(x: ().__class__ = 1):\n    return x\ndef attack():\n    return f()",
    "dunder_attributes_in_return_annotations_are_refused": "def f() -> ().__class__:\n    return 1\ndef attack():\n    return f()",
    "dunder_attributes_in_decorators_are_refused": "@().__class__\ndef f():\n    pass\ndef attack():\n    return True",
    "dunder_attributes_in_fstrings_are_refused": "def attack():\n    return f'{().__class__}'",
    "dunder_attributes_in_nested_format_specs_are_refused": "def attack():\n    return f'{1:{().__class__}}'",
    "dunder_attributes_in_patterns_are_refused": "def attack():\n    match 1:\n        case object(__class__=c):\n            return c",
    "dunder_attributes_in_value_patterns_are_refused": "def attack():\n    match int:\n        case int.__class__:\n            return True",
    "dunder_attributes_by_getattr_are_refused": "def attack():\n    return getattr((), '__class__')",
    "dunder_attributes_by_a_default_do_not_help": "def attack():\n    return getattr((), '__class__', True)",
    "dunder_names_built_at_run_time_are_refused": "def attack():\n    u = chr(95) * 2\n    return getattr((), u + 'class' + u)",
    "getattr_called_by_c_code_is_still_guarded": "def attack():\n    return list(map(getattr, [()], ['__class__']))",
    "getattr_kept_in_a_partial_is_still_guarded": "import functools\ndef attack():\n    return functools.partial(getattr, ())('__class__')",
    "getattr_of_a_name_that_is_no_exact_str_is_refused": "class N:\n    def __eq__(self, o):\n        return True\n    def __hash__(self):\n        return 1\n    def startswith(self, x):\n        return False\ndef attack():\n    return getattr((), N())",
    "str_cannot_be_extended_to_lie_about_names": "class N(str):\n    def startswith(self, *a):\n        return False\ndef attack():\n    return getattr((), N('__class__'))",
    "full_width_spellings_are_normalised_before_the_check": "def attack():\n    return ()._＿class＿＿",
    "full_width_names_given_to_getattr_find_nothing": "def attack():\n    return getattr((x for x in []), 'ｇi_frame', None)",
    "hasattr_tells_nothing_of_dunder_names": "def attack():\n    return hasattr((), '__class__')",
    "module_globals_of_functions_are_refused": "def attack():\n    return attack.__globals__",
    "closures_of_host_functions_are_refused": "def attack():\n    return getattr(posthog.capture, '__closure__')",
    "mro_is_refused": "def attack():\n    return int.mro()",
    "mro_by_getattr_is_refused": "def attack():\n    return getattr(Exception, 'mro')()",
    "dunder_file_and_spec_names_are_refused": "def attack():\n    return __loader__ or __spec__ or __file__",
    "dunder_builtins_is_refused": "def attack():\n    return __builtins__",
    "the_guards_names_cannot_be_spelled": "def attack():\n    return [_write_, _getattr_, __metaclass__]",
    "dict_items_with_dunder_keys_are_only_data": "def attack():\n    return {'__class__': 0}['__class__']",
}

FRAMES = {
    "generator_frames_are_not_shown": "def attack():\n    return (x for x in []).gi_frame",
    "generator_frames_by_getattr_are_not_shown": "def attack():\n    return getattr((x for x in []), 'gi_' + 'frame')",
    "generator_code_is_not_shown": "def attack():\n    return getattr((x for x in []), 'gi_code')",
    "generator_delegates_are_not_shown": "def attack():\n    return getattr((x for x in []), 'gi_yieldfrom', 0)",
    "coroutine_frames_are_not_shown": "async def f():\n    pass\ndef attack():\n    c = f()\n    try:\n        return getattr(c, 'cr_frame')\n    finally:\n        c.close()",
    "async_generator_frames_are_not_shown": "async def f():\n    yield 1\ndef attack():\n    return getattr(f(), 'ag_frame')",
    "tracebacks_are_not_shown": "def attack():\n    try:\n        1 / 0\n    except Exception as e:\n        return e.__traceback__",
    "tracebacks_by_getattr_are_not_shown": "def attack():\n    try:\n        1 / 0\n    except Exception as e:\n        return getattr(e, '__traceback__')",
    "with_traceback_is_not_available": "def attack():\n    return ValueError().with_traceback",
    "exit_does_not_get_the_traceback_by_name": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, a, b, c):\n        self.c = c\n        return True\ndef attack():\n    with C() as x:\n        1 / 0\n    return str(x.c)",
    "exit_does_not_get_the_traceback_among_the_rest": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *rest):\n        self.c = rest[2]\n        return True\ndef attack():\n    with C() as x:\n        1 / 0\n    return str(x.c)",
    "exit_does_not_get_the_traceback_by_keyword": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, a, b, c=None, *, d=None):\n        self.c = c\n        return True\ndef attack():\n    with C() as x:\n        1 / 0\n    return str(x.c)",
    "exit_does_not_get_the_traceback_in_an_inner_function": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, a, b, c):\n        self.c = lambda: c\n        return True\ndef attack():\n    with C() as x:\n        1 / 0\n    return str(x.c())",
    "exit_cannot_be_decorated_to_see_the_traceback": "def deco(f):\n    def g(*a):\n        f.c = a\n        return True\n    return g\nclass C:\n    def __enter__(self):\n        return self\n    @deco\n    def __exit__(self, *a):\n        return True\ndef attack():\n    with C():\n        1 / 0\n    return C",
    "aexit_does_not_get_the_traceback": "class C:\n    async def __aenter__(self):\n        return self\n    async def __aexit__(self, *rest):\n        self.c = rest[2]\n        return True\nasync def attack():\n    async with C() as x:\n        1 / 0\n    return str(x.c)",
    "aexit_called_through_super_does_not_get_it_either": "class A:\n    async def __aenter__(self):\n        return self\n    async def __aexit__(self, *rest):\n        self.c = rest\n        return True\nclass B(A):\n    async def __aexit__(self, *rest):\n        return await super().__aexit__(*rest, None)\nasync def attack():\n    async with B() as x:\n        1 / 0\n    return len(x.c) > 2",
    "patterns_do_not_read_frames": "def attack():\n    match (x for x in []):\n        case object(gi_frame=f):\n            return f",
    "patterns_with_full_width_names_do_not_read_frames": "def attack():\n    match (x for x in []):\n        case object(ｇi_frame=f):\n            return f",
    "match_args_cannot_be_defined": "class P:\n    __match_args__ = ('__class__',)\ndef attack():\n    match P():\n        case P(c):\n            return c",
    "match_args_cannot_be_set_later": "class P:\n    pass\ndef attack():\n    setattr(P, '__match_args__', ('__class__',))\n    match P():\n        case P(c):\n            return c",
    "namedtuple_fields_cannot_be_forbidden_names": "from collections import namedtuple\ndef attack():\n    return namedtuple('P', ['gi_frame'])",
    "namedtuple_fields_cannot_be_code": "from collections import namedtuple\ndef attack():\n    return namedtuple('P', ['x=print(1)'])",
    "except_star_is_refused": "class E(Exception):\n    def split(self, *a):\n        return 'not a tuple'\ndef attack():\n    try:\n        raise E\n    except* Exception:\n        return True",
    "exception_groups_are_not_available": "def attack():\n    return ExceptionGroup('x', [ValueError()])",
    "the_object_of_an_attribute_error_is_not_shown": "def attack():\n    try:\n        meta.nothing\n    except AttributeError as e:\n        return e.obj",
    "the_object_of_an_attribute_error_by_getattr_is_not_shown": "import uuid\ndef attack():\n    try:\n        uuid.os\n    except AttributeError as e:\n        return getattr(e, 'obj', None)",
    "code_objects_cannot_be_replaced": "def attack():\n    def f():\n        return 1\n    f.__code__ = attack.__code__\n    return True",
}

FORMATTING = {
    "format_reads_no_attributes": "def attack():\n    return '{0.__class__}'.format(1)",
    "format_reads_no_attributes_of_fields": "def attack():\n    return '{x.real}'.format(x=1)",
    "format_reads_no_attributes_in_nested_specs": "def attack():\n    return '{0:{1.__class__}}'.format(1, 2)",
    "format_reads_no_attributes_after_items": "def attack():\n    return '{0[a].__class__}'.format({'a': 1})",
    "format_map_reads_no_attributes": "def attack():\n    return '{a.__class__}'.format_map({'a': 1})",
    "format_got_by_getattr_reads_no_attributes": "def attack():\n    return getattr('{0.__class__}', 'for' + 'mat')(1)",
    "the_unbound_format_is_not_available": "def attack():\n    return str.format('{0.__class__}', 1)",
    "the_unbound_format_by_getattr_is_not_available": "def attack():\n    return getattr(str, 'format')('{0.__class__}', 1)",
    "the_unbound_format_by_type_is_not_available": "def attack():\n    return type('x').format('{0.__class__}', 1)",
    "the_unbound_format_map_is_not_available": "def attack():\n    return str.format_map('{a.__class__}', {'a': 1})",
    "format_cannot_be_matched_out": "def attack():\n    match '{0.__class__}':\n        case str(format=f):\n            return f(1)",
    "format_cannot_be_matched_out_by_value": "def attack():\n    match 1:\n        case str.format:\n            return True\n    return 0",
    "format_of_a_str_subclass_is_not_available": "class S(str):\n    pass\ndef attack():\n    return S('{0.__class__}').format(1)",
    "format_through_super_is_not_available": "class S(str):\n    def f(self):\n        return super().format(1)\ndef attack():\n    return S('{0.__class__}').f()",
    "format_through_a_cache_on_str_is_not_available": "import functools\ndef attack():\n    return functools.lru_cache(str).format('{0.__class__}', 1)",
    "format_in_an_augmented_assignment_is_refused": "class A:\n    pass\ndef attack():\n    a = A()\n    a.format += 1\n    return True",
    "formatter_is_not_importable": "from string import Formatter\ndef attack():\n    return Formatter().format('{0.__class__}', 1)",
    "formatter_is_not_an_attribute": "import string\ndef attack():\n    return string.Formatter().format('{0.__class__}', 1)",
    "templates_do_not_read_attributes": "import string\ndef attack():\n    return '$' not in string.Template('${a.__class__}').safe_substitute(a=1)",
    "templates_show_no_class_internals": "import string\ndef attack():\n    t = string.Template('$a')\n    return getattr(t, 'pattern', 0) or getattr(t, 'idpattern', 0)",
    "userstring_is_not_available": "from collections import UserString\ndef attack():\n    return UserString('{0.__class__}').format(1)",
    "percent_formatting_reads_only_items": "class M:\n    def __getitem__(self, k):\n        return ''\ndef attack():\n    return '%(a.__class__)s' % M()",
    "logging_is_not_available": "import logging\ndef attack():\n    return logging.Formatter",
    "operator_is_not_available": "import operator\ndef attack():\n    return operator.attrgetter('__class__')(1)",
}

NAMES = {
    f"a_guards_name_cannot_be_bound_{form}": source
    for form, source in {
        "by_assignment": "_write_ = lambda o: o\ndef attack():\n    return True",
        "by_augmented_assignment": "_write_ += 1\ndef attack():\n    return True",
        "by_annotated_assignment": "_write_: object = 1\ndef attack():\n    return True",
        "by_def": "def attack():\n    def _getattr_(o, n):\n        return 1\n    return True",
        "by_async_def": "def attack():\n    async def _getattr_(o, n):\n        return 1\n    return True",
        "by_async_parameters": "async def attack(_write_=1):\n    return True",
        "by_class": "class _getattr_:\n    pass\ndef attack():\n    return True",
        "by_metaclass_name": "__metaclass__ = lambda *a: 1\ndef attack():\n    return True",
        "by_positional_only_parameter": "def attack(_getattr_=1, /):\n    return True",
        "by_keyword_only_parameter": "def attack(*, _getattr_=1):\n    return True",
        "by_star_parameter": "def attack(*_getattr_):\n    return True",
        "by_double_star_parameter": "def attack(**_getattr_):\n    return True",
        "by_lambda_parameter": "def attack():\n    return (lambda _write_=1, /: True)()",
        "by_for": "def attack():\n    for _write_ in [1]:\n        return True",
        "by_async_for": "async def g():\n    yield 1\nasync def attack():\n    async for _write_ in g():\n        return True",
        "by_with": "def attack():\n    with meta as _write_:\n        return True",
        "by_comprehension": "def attack():\n    return [1 for _write_ in [1]]",
        "by_walrus": "def attack():\n    return (_write_ := 1)",
        "by_except": "def attack():\n    try:\n        1 / 0\n    except Exception as _write_:\n        return True",
        "by_import": "import json as _write_\ndef attack():\n    return True",
        "by_from_import": "from math import pi as _write_\ndef attack():\n    return True",
        "by_global": "def attack():\n    global _write_\n    return True",
        "by_nonlocal": "def attack():\n    x = 1\n    def f():\n        nonlocal _write_\n    return True",
        "by_match_capture": "def attack():\n    match 1:\n        case _write_:\n            return True",
        "by_match_as": "def attack():\n    match 1:\n        case int() as _write_:\n            return True",
        "by_match_star": "def attack():\n    match [1]:\n        case [*_write_]:\n            return True",
        "by_match_rest": "def attack():\n    match {'a': 1}:\n        case {**_write_}:\n            return True",
        "by_type_parameter": "def attack[_write_]():\n    return True",
        "by_type_alias": "type _write_ = int\ndef attack():\n    return True",
        "by_unpacking": "[a, *_write_] = 1, 2\ndef attack():\n    return True",
        "by_del": "def attack():\n    del _write_\n    return True",
        "in_another_alphabet": "_𝑔etattr_ = 1\ndef attack():\n    return True",
    }.items()
} | {
    "super_cannot_be_rebound_to_reach_an_init": "import uuid\nsuper = lambda: uuid\ndef attack():\n    return super().__init__",
    "super_cannot_be_a_parameter": "class A:\n    def f(self, super):\n        return super().__init__\ndef attack():\n    return A().f(lambda: [])",
    "super_cannot_be_imported_over": "from math import pi as super\ndef attack():\n    return True",
    "keyword_arguments_with_dunder_names_are_only_data": "def attack():\n    return dict(__class__=0, _write_=0)['__class__']",
}

CLASSES = {
    **{
        f"a_class_cannot_define_{method}": f"class A:\n    def {method}(self, *a):\n        return a\ndef attack():\n    return A"
        for method in (
            "__new__ __del__ __getattr__ __getattribute__ __setattr__ __delattr__ __class_getitem__ __init_subclass__ __set_name__ "
            "__get__ __set__ __delete__ __reduce__ __reduce_ex__ __getstate__ __setstate__ __copy__ __deepcopy__ __await__ __prepare__ "
            "__instancecheck__ __subclasscheck__ __subclasshook__ __mro_entries__ __dir__ __sizeof__ __buffer__ __fspath__ __bytes__ "
            "__class__ __dict__ __missing__ __length_hint__ __getnewargs__ __build_class__ __import__"
        ).split()
    },
    "special_methods_cannot_be_assigned": "class A:\n    __call__ = lambda self: 1\ndef attack():\n    return A()()",
    "special_methods_cannot_be_defined_at_module_level": "def __init__(self):\n    return 1\ndef attack():\n    return True",
    "special_methods_cannot_be_defined_in_functions": "def attack():\n    def __call__(self):\n        return 1\n    return True",
    "special_methods_cannot_be_set_later": "class A:\n    pass\ndef attack():\n    setattr(A, '__call__', lambda self: 1)\n    return A()()",
    "special_methods_cannot_be_imported": "class A:\n    from math import pi as __call__\ndef attack():\n    return A",
    "type_makes_no_classes": "def attack():\n    return type('X', (), {'__call__': lambda self: 1})()()",
    "the_metaclass_is_not_reached_by_type": "class A:\n    pass\ndef attack():\n    M = type(A)\n    return M('X', (), {'__del__': 1})",
    "the_metaclass_is_not_written_to": "class A:\n    pass\ndef attack():\n    type(A).shared = 1\n    return True",
    "class_keywords_are_refused": "class A(metaclass=type):\n    pass\ndef attack():\n    return True",
    "class_keywords_by_double_star_are_refused": "class A(**{'metaclass': type}):\n    pass\ndef attack():\n    return True",
    **{
        f"{base}_cannot_be_extended": f"import collections, datetime, decimal, uuid, itertools, functools, typing, re, string\nclass A({expression}):\n    pass\ndef attack():\n    return A"
        for base, expression in {
            "str": "str",
            "dict": "dict",
            "int": "int",
            "type": "type",
            "the_type_of_a_type": "type(int)",
            "list_alias": "list[int]",
            "counter": "collections.Counter",
            "defaultdict": "collections.defaultdict",
            "datetime": "datetime.datetime",
            "date": "datetime.date",
            "tzinfo": "type(datetime.timezone.utc)",
            "decimal": "decimal.Decimal",
            "uuid": "uuid.UUID",
            "property": "property",
            "super": "super",
            "classmethod": "classmethod",
            "chain": "itertools.chain",
            "template": "string.Template",
            "a_facade": "posthog",
            "the_type_of_a_facade": "type(posthog)",
            "the_type_of_a_function": "type(posthog.capture)",
            "a_namedtuple": "collections.namedtuple('P', 'x')",
            "a_hint": "typing.Any",
            "an_instance": "1",
            "a_union": "int | str",
        }.items()
    },
    "base_exception_cannot_be_extended": "class E(BaseException):\n    pass\ndef attack():\n    return E",
    "system_exit_cannot_be_raised": "def attack():\n    raise SystemExit",
    "generator_exit_cannot_be_caught": "def attack():\n    try:\n        pass\n    except GeneratorExit:\n        pass\n    return True",
    "keyboard_interrupt_cannot_be_raised": "def attack():\n    raise KeyboardInterrupt",
    "the_class_of_an_instance_cannot_be_changed": "class A:\n    pass\nclass B:\n    pass\ndef attack():\n    a = A()\n    setattr(a, '__class__', B)\n    return True",
    "a_class_cannot_pretend_to_be_of_another_module": "class A:\n    __module__ = 'os'\ndef attack():\n    return A",
    "a_class_cannot_be_renamed": "class A:\n    pass\ndef attack():\n    A.__name__ = 'x'\n    return True",
}

CAPABILITIES = {
    **{
        f"{module.replace('.', '_')}_is_not_importable": f"import {module}\ndef attack():\n    return {module.partition('.')[0]}"
        for module in (
            "os sys builtins gc ctypes pickle marshal inspect types importlib subprocess socket signal threading asyncio io operator copy "
            "dataclasses enum contextlib weakref codecs logging warnings traceback linecache tempfile pathlib shutil json.decoder "
            "html.entities urllib.request collections.abc re._parser concurrent.futures multiprocessing ast code dis opcode "
            "sandbox sandbox.guards RestrictedPython orjson _thread posix faulthandler resource atexit ｏs"
        ).split()
    },
    **{
        f"{module}_does_not_show_{member}": f"import {module}\ndef attack():\n    return getattr({module}, {member!r})"
        for module, members in {
            "json": "codecs decoder encoder scanner JSONEncoder JSONDecoder load dump",
            "re": "enum functools copyreg sys template purge Scanner RegexFlag",
            "uuid": "os sys uuid1 getnode Enum",
            "random": "SystemRandom getstate setstate seed_ os",
            "statistics": "sys math random NormalDist Fraction",
            "string": "Formatter re",
            "decimal": "Context setcontext DefaultContext BasicContext HAVE_THREADS",
            "collections": "abc UserDict UserList UserString ChainMap sys",
            "functools": "partialmethod singledispatch update_wrapper total_ordering cached_property GenericAlias",
            "typing": "get_type_hints sys ForwardRef NamedTuple",
            "hashlib": "scrypt file_digest algorithms_available shake_128",
            "hmac": "HMAC trans_5C",
            "zlib": "decompressobj compressobj",
            "time": "tzset clock_settime get_clock_info",
            "datetime": "sys tzinfo datetime_CAPI",
            "html": "entities parser",
            "textwrap": "re TextWrapper",
            "base64": "struct binascii re main",
            "math": "sys",
        }.items()
        for member in members.split()
    },
    **{
        f"the_builtin_{name}_is_missing": f"def attack():\n    return [{name}][0]"
        for name in (
            "eval exec compile open input globals locals vars dir id help breakpoint memoryview bytearray exit quit copyright "
            "BaseException SystemExit KeyboardInterrupt GeneratorExit BaseExceptionGroup ExceptionGroup __import__ __build_class__ __debug__"
        ).split()
    },
    "exec_in_a_list_is_missing": "def attack():\n    [exec][0]('x = 1')\n    return True",
    "strptime_does_not_give_its_module": "from datetime import datetime\ndef attack():\n    f = datetime.strptime\n    return getattr(f, 'func', 0) or getattr(f, 'modules', 0)",
    "host_functions_show_no_parts": "def attack():\n    return [1 for f in (posthog.capture, console.log, fetch, print) for n in ('func', 'args', 'keywords', 'cache_info') if getattr(f, n, None)]",
    "partials_show_no_parts": "import functools\ndef attack():\n    p = functools.partial(posthog.capture, 'x')\n    return getattr(p, 'func', 0) or getattr(p, 'args', 0)",
    "time_sleep_is_refused": "import time\ndef attack():\n    time.sleep(0)\n    return True",
    "coroutines_are_not_driven_by_hand": "async def f():\n    return 1\ndef attack():\n    c = f()\n    try:\n        c.send(None)\n    except StopIteration as e:\n        return e.value\n    finally:\n        c.close()",
    "coroutines_are_not_driven_through_getattr": "async def f():\n    return 1\ndef attack():\n    c = f()\n    try:\n        return getattr(c, 'send')\n    finally:\n        c.close()",
    "coroutines_are_not_thrown_into": "async def f():\n    return 1\ndef attack():\n    c = f()\n    try:\n        return c.throw\n    finally:\n        c.close()",
    "awaitables_of_async_generators_are_not_iterated": "async def f():\n    yield 1\ndef attack():\n    return list(f().asend(None))",
    "anext_is_not_iterated": "async def f():\n    yield 1\ndef attack():\n    c = anext(f())\n    try:\n        return list(c)\n    finally:\n        c.close()",
    "host_awaitables_hand_their_token_to_nobody_else": "async def inner():\n    return await fetch('http://x')\nasync def outer():\n    yield await fetch('http://x')\ndef attack():\n    c = anext(outer())\n    try:\n        return next(c)\n    finally:\n        c.close()",
    "a_generator_cannot_stand_in_for_a_coroutine": "def g():\n    yield 'forged'\nasync def attack():\n    return await g()",
    "an_apps_equality_is_not_asked_about_others_urls": "import urllib.parse\nseen = []\nclass K:\n    def __hash__(self):\n        return 1\n    def __eq__(self, o):\n        seen.append(o)\n        return True\ndef attack():\n    urllib.parse.urlsplit(K())\n    return seen",
    "an_apps_equality_is_not_asked_about_others_patterns": "import re\nseen = []\nclass K:\n    def __hash__(self):\n        return 1\n    def __eq__(self, o):\n        seen.append(o)\n        return True\ndef attack():\n    re.compile(K())\n    return seen",
    "an_apps_equality_is_not_asked_about_item_names": "seen = []\nclass K:\n    def __hash__(self):\n        return hash('config')\n    def __eq__(self, o):\n        seen.append(o)\n        return True\ndef attack():\n    try:\n        meta[K()]\n    except KeyError:\n        pass\n    return seen or K() in meta",
    "hash_tells_no_addresses": "def attack():\n    return hash(attack)",
    "hash_in_tuples_tells_no_addresses": "def attack():\n    return hash((1, (posthog,)))",
    "a_hostile_digest_is_not_called": "import hmac\ncalled = []\nclass D:\n    block_size = 64\n    digest_size = 1\n    def __init__(self, *a):\n        called.append(1)\n    def update(self, x):\n        called.append(x)\ndef attack():\n    try:\n        hmac.new(b'k', b'm', D)\n    except ValueError:\n        pass\n    return called",
    "import_errors_tell_no_paths": "def attack():\n    try:\n        from math import nothing\n    except ImportError as e:\n        return getattr(e, 'path', None)",
    "decompression_is_bounded": "import zlib\ndef attack():\n    bomb = zlib.compress(b'0' * 20_000_000)\n    return len(zlib.decompress(bomb)) > 10_000_000",
    "factorials_are_bounded": "import math\ndef attack():\n    return math.factorial(10 ** 8)",
    "combinations_are_bounded": "import math\ndef attack():\n    return math.comb(10 ** 9, 10 ** 8)",
    "patterns_are_bounded": "import re\ndef attack():\n    return re.compile('a?' * 100_000)",
    "precision_is_bounded": "import decimal\ndef attack():\n    with decimal.localcontext(prec=10 ** 7):\n        return True",
    "random_bits_are_bounded": "import random\ndef attack():\n    return random.getrandbits(10 ** 9)",
    "key_derivation_is_bounded": "import hashlib\ndef attack():\n    return hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10 ** 9)",
    "numbers_of_too_many_digits_are_not_printed": "def attack():\n    return str(1 << 10 ** 6)",
}

MUTATIONS = {
    **{
        f"{target}_is_read_only": f"import json, re, collections, datetime, decimal, functools, string, uuid, random, math\ndef attack():\n    {statement}\n    return True"
        for target, statement in {
            "a_module": "json.x = 1",
            "a_module_through_setattr": "setattr(json, 'x', 1)",
            "a_module_through_del": "del json.loads",
            "a_module_through_delattr": "json.loads and setattr(json, 'loads', 1)",
            "a_module_in_a_tuple_target": "(json.x, y) = 1, 2",
            "a_module_in_a_star_target": "[*json.x] = 1, 2",
            "a_module_in_a_for_target": "for json.x in [1]: pass",
            "a_module_in_a_comprehension_target": "[0 for json.x in [1]]",
            "a_module_in_an_annotated_target": "json.x: int = 1",
            "a_module_in_an_augmented_target": "math.pi += 1",
            "a_module_as_an_item": "json['x'] = 1",
            "a_module_function": "re.compile.x = 1",
            "a_module_class": "collections.Counter.x = 1",
            "a_counter": "collections.Counter().x = 1",
            "the_datetime_class": "datetime.datetime.now = 1",
            "a_datetime": "datetime.datetime.now().x = 1",
            "a_uuid": "uuid.NAMESPACE_DNS.int = 1",
            "a_flag": "re.I.x = 1",
            "an_exception_class": "json.JSONDecodeError.x = 1",
            "a_builtin_exception_class": "ValueError.x = 1",
            "a_builtin_type": "dict.get = 1",
            "a_builtin_function": "len.x = 1",
            "an_own_function": "attack.x = 1",
            "posthog": "posthog.capture = 1",
            "posthog_api": "posthog.api.get = 1",
            "meta_by_item": "meta['storage'] = 1",
            "meta_by_attribute": "meta.storage = 1",
            "the_decimal_context": "decimal.getcontext().prec = 7",
            "the_result_of_type": "type(posthog).x = 1",
        }.items()
    },
    "functools_wraps_does_not_write_to_host_functions": "import functools\ndef f():\n    '''mine'''\ndef attack():\n    functools.wraps(f)(posthog.capture)\n    return True",
    "functools_wraps_does_not_write_to_module_functions": "import functools, json\ndef f():\n    '''mine'''\ndef attack():\n    functools.wraps(f)(json.loads)\n    return True",
    "properties_of_host_classes_are_not_reinitialised": "import uuid\ndef attack():\n    p = uuid.UUID.hex\n    return p.fget or p.setter",
    "a_builtin_rebound_by_one_app_is_not_seen_by_the_next": "if len('') != 0:\n    planted = True\nelse:\n    planted = False\n    len = lambda x: 99\ndef attack():\n    return planted",
    "a_module_rebound_by_one_app_is_not_seen_by_the_next": "import json\nplanted = json == 1\njson = 1\ndef attack():\n    return planted",
    "a_seed_of_one_app_is_not_felt_by_the_next": "import random\nx = random.random()\nrandom.seed(5)\ny = random.random()\ndef attack():\n    return x == 0.6229016948897019",
    "a_decimal_precision_left_behind_is_reset": "from decimal import Decimal, localcontext\nfound = str(Decimal(1) / 3)\ndef hold():\n    with localcontext(prec=3):\n        yield 1\ng = hold()\nnext(g)\ndef attack():\n    return len(found) < 10",
    "a_time_out_is_not_swallowed_by_bare_except": "def attack():\n    try:\n        stop()\n    except:\n        return True",
    "a_time_out_is_not_swallowed_by_exit": "seen = []\nclass C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *rest):\n        seen.append(rest)\n        return True\ndef attack():\n    with C():\n        stop()\n    return True",
    "a_time_out_is_not_shown_to_exit": "seen = []\nclass C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *rest):\n        if rest[0] is not None:\n            console.log('breach')\n        return False\ndef attack():\n    with C():\n        stop()",
    "a_time_out_is_not_swallowed_by_return_in_finally": "def attack():\n    try:\n        stop()\n    finally:\n        return True",
    "a_time_out_is_not_swallowed_by_break_in_finally": "def attack():\n    while True:\n        try:\n            stop()\n        finally:\n            break\n    return True",
    "a_time_out_is_not_swallowed_by_hasattr": "class A:\n    @property\n    def x(self):\n        stop()\ndef attack():\n    hasattr(A(), 'x')\n    return True",
}

SYNTAX = {
    "source_that_is_nested_too_deeply_is_refused": "x = " + "(" * 5000 + "1" + ")" * 5000,
    "long_chains_of_unary_operators_are_refused": "x = " + "-" * 60_000 + "1",
    "source_with_a_nul_is_refused": "x = 1\x00",
    "source_with_a_lone_surrogate_is_refused": "x = '\ud800'",
    "source_that_is_too_large_is_refused": "#" * 300_000,
    "source_that_is_not_python_is_refused": "def f(:\n",
    "mixed_tabs_are_refused": "if 1:\n\tx = 1\n        y = 2\n",
}
