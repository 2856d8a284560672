"""Hostile programs that try the grammar: every form that names, binds, reads or calls something without looking like it.

`attack()` returns something true when it got through, as in `hostile`.
"""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

# Where an expression can stand. `{}` is replaced by one that must not be compiled or must not answer.
PLACES = {
    "a_default": "def f(x={}):\n    return x\ndef attack():\n    return f()",
    "a_keyword_default": "def f(*, x={}):\n    return x\ndef attack():\n    return f()",
    "a_lambda_default": "def attack():\n    return (lambda x={}: x)()",
    "an_async_default": "async def f(x={}):\n    pass\ndef attack():\n    return True",
    "a_class_base": "class A({}):\n    pass\ndef attack():\n    return A",
    "a_class_decorator": "@{}\nclass A:\n    pass\ndef attack():\n    return A",
    "a_called_decorator": "@(lambda f: [{}, f][0])\ndef attack():\n    return True",
    "an_annotation_of_a_star": "def f(*a: {}):\n    return True\ndef attack():\n    return f()",
    "an_annotation_of_a_variable": "def attack():\n    x: {} = 1\n    return x",
    "an_annotation_of_an_item": "def attack():\n    d = {{}}\n    d[0]: {}\n    return True",
    "an_index": "def attack():\n    return [True][{} and 0]",
    "a_slice": "def attack():\n    return [True][{}:1] or True",
    "a_star_in_an_index": "def attack():\n    return {{(1,): True}}[*[{}]]",
    "a_star_in_a_call": "def attack():\n    return bool([*[{}]])",
    "a_double_star": "def attack():\n    return dict(**{{'a': {}}})",
    "a_walrus": "def attack():\n    return (x := {})",
    "a_walrus_in_a_comprehension": "def attack():\n    return [y := {} for x in [1]]",
    "a_comprehensions_condition": "def attack():\n    return [1 for x in [1] if {} or True]",
    "a_comprehensions_source": "def attack():\n    return [x for x in [{}]]",
    "a_dict_comprehensions_key": "def attack():\n    return {{str({}): x for x in [1]}}",
    "a_nested_function": "def attack():\n    def f():\n        def g():\n            return {}\n        return g()\n    return f()",
    "a_while_condition": "def attack():\n    while {}:\n        return True\n    return True",
    "an_assert": "def attack():\n    assert {}\n    return True",
    "an_assert_message": "def attack():\n    assert 0, {}",
    "a_raise": "def attack():\n    raise ValueError({})",
    "a_raise_from": "def attack():\n    try:\n        raise ValueError from {}\n    except Exception:\n        return True",
    "an_except": "def attack():\n    try:\n        1 / 0\n    except {}:\n        pass\n    return True",
    "a_with_item": "def attack():\n    with {} as x:\n        return True",
    "a_with_target": "def attack():\n    class C:\n        def __enter__(self):\n            return 1\n        def __exit__(self, *a):\n            pass\n    d = {{}}\n    with C() as d[{}]:\n        return True",
    "a_match_subject": "def attack():\n    match {}:\n        case _:\n            return True",
    "a_match_guard": "def attack():\n    match 1:\n        case _ if {}:\n            return True\n    return True",
    "a_delete": "def attack():\n    d = {{}}\n    del d[{}]\n    return True",
    "a_for_target": "def attack():\n    d = {{}}\n    for d[{}] in [1]:\n        return True",
    "an_augmented_item": "def attack():\n    d = {{}}\n    d[{}] = 1\n    d[{}] += 1\n    return True",
    "a_comparison_chain": "def attack():\n    return 1 < 2 != {}",
    "a_conditional": "def attack():\n    return {} if True else 0",
    "a_yield": "def g():\n    yield {}\ndef attack():\n    return next(g())",
    "a_yield_from": "def g():\n    yield from [{}]\ndef attack():\n    return next(g())",
    "an_await": "async def f():\n    return {}\nasync def attack():\n    return await f()",
    "an_fstring": "def attack():\n    return f'{{{}}}'",
    "an_fstring_with_a_conversion": "def attack():\n    return f'{{{}!r}}'",
    "an_fstrings_width": "def attack():\n    return f'{{1:{{len(str({}))}}}}'",
    "an_fstring_in_an_fstring": "def attack():\n    return f\"{{f'{{{}}}'}}\"",
    "a_debugging_fstring": "def attack():\n    return f'{{{}=}}'",
    "an_import_guarded_block": "import json\nif json:\n    x = {}\ndef attack():\n    return x",
    "a_class_body": "class A:\n    x = {}\ndef attack():\n    return A.x",
    "a_method_default": "class A:\n    def f(self, x={}):\n        return x\ndef attack():\n    return A().f()",
}

WALKS = {
    **{
        f"a_dunder_walk_is_refused_in_{place}": source.replace("{}", "().__class__")
        .replace("{{", "{")
        .replace("}}", "}")
        for place, source in PLACES.items()
    },
    **{
        f"a_frame_is_not_read_in_{place}": source.replace("{}", "(x for x in []).gi_frame")
        .replace("{{", "{")
        .replace("}}", "}")
        for place, source in PLACES.items()
    },
    **{
        f"the_attribute_{name}_is_refused": f"def f():\n    yield 1\ndef attack():\n    return [x.{name} for x in (f, f(), 1, '', ValueError(), posthog, f.__name__)]"
        for name in (
            "__class__ __dict__ __base__ __bases__ __mro__ __subclasses__ __init__ __globals__ __code__ __closure__ __defaults__ "
            "__kwdefaults__ __func__ __self__ __wrapped__ __module__ __doc__ __qualname__ __annotations__ __builtins__ __getattribute__ "
            "__reduce_ex__ __traceback__ __context__ __cause__ __notes__ __suppress_context__ __type_params__ __objclass__ __origin__ "
            "__args__ __slots__ __weakref__ __thisclass__ __self_class__ __get__ __set__ __loader__ __spec__ __path__ __file__ "
            "gi_code gi_running gi_yieldfrom gi_suspended cr_frame cr_await cr_code cr_origin ag_frame ag_code ag_running f_back f_globals "
            "f_locals f_builtins f_code f_lineno tb_frame tb_next tb_lasti co_consts co_names co_code cell_contents func_globals obj "
            "name_from with_traceback mro x__roles__ print_file_and_line"
        ).split()
    },
    **{
        f"the_attribute_{name}_is_refused_by_getattr": f"def f():\n    yield 1\ndef attack():\n    return [x for o in (f(), f, ValueError('x'), int, posthog.capture, console) for x in [getattr(o, '{name}', None)] if x is not None]"
        for name in "gi_frame gi_yieldfrom ag_await cr_frame __func__ __self__ __wrapped__ __context__ __cause__ __notes__ tb_frame mro obj".split()
    },
    **{
        f"a_class_pattern_does_not_read_{name}": f"def attack():\n    match attack:\n        case object({name}=x):\n            return True"
        for name in "__globals__ __code__ __closure__ __class__ __name__ __module__ gi_code mro obj f_back format format_map send throw groupindex _fields".split()
    },
    **{
        f"a_value_pattern_does_not_read_{name}": f"def attack():\n    match 1:\n        case attack.{name}:\n            return True\n        case _:\n            return True"
        for name in "__globals__ gi_frame mro format send __class__.__base__ __code__.co_consts".split()
    },
    "a_value_pattern_in_a_mapping_key_is_checked": "def attack():\n    match {}:\n        case {attack.__code__: 1}:\n            return True\n        case _:\n            return True",
    "a_class_pattern_with_a_dotted_class_is_checked": "def attack():\n    match 1:\n        case int.__class__():\n            return True",
    "a_class_pattern_on_an_exceptions_parts_is_checked": "def attack():\n    try:\n        meta.nothing\n    except AttributeError as e:\n        match e:\n            case AttributeError(obj=o):\n                return o",
    "a_positional_pattern_needs_match_args": "import re\ndef attack():\n    match re.match('a', 'a'):\n        case re.Match(x):\n            return x",
    "match_args_are_not_annotated_in": "class P:\n    __match_args__: tuple = ('__class__',)\ndef attack():\n    match P():\n        case P(c):\n            return c",
    "match_args_are_not_looped_in": "class P:\n    for __match_args__ in [('__class__',)]:\n        pass\ndef attack():\n    match P():\n        case P(c):\n            return c",
    "match_args_are_not_imported": "class P:\n    from math import pi as __match_args__\ndef attack():\n    return P",
    "match_args_are_not_a_walrus": "class P:\n    (__match_args__ := ('__class__',))\ndef attack():\n    return P",
    "match_args_are_not_a_function": "class P:\n    def __match_args__(self):\n        pass\ndef attack():\n    return P",
    "match_args_are_not_an_error": "class P:\n    try:\n        1 / 0\n    except ZeroDivisionError as __match_args__:\n        pass\ndef attack():\n    return P",
    "mangled_names_are_refused": "class A:\n    def f(self):\n        return self.__globals\ndef attack():\n    return A().f()",
    "a_class_cell_is_not_read": "class A:\n    def f(self):\n        return __class__\ndef attack():\n    return A().f()",
    "a_class_cell_is_not_bound": "class A:\n    def f(self):\n        nonlocal __class__\n        __class__ = int\n        return True\ndef attack():\n    return A().f()",
    "slots_are_not_named": "class A:\n    __slots__ = ('x',)\ndef attack():\n    return A",
    "qualnames_are_not_set_in_a_body": "class A:\n    __qualname__ = 'system'\ndef attack():\n    return A",
    "docs_are_not_set_in_a_body": "class A:\n    __doc__ = 'x'\ndef attack():\n    return A",
    "annotations_are_not_named_in_a_body": "class A:\n    __annotations__ = {}\ndef attack():\n    return A",
    "annotations_leave_nothing_behind": "class A:\n    x: int = 1\ndef attack():\n    return hasattr(A, '__annotations__') or getattr(A, 'annotations', 0)",
}

BINDINGS = {
    f"{name}_is_not_bound_{form}": source.replace("NAME", name)
    for name in (
        "_getitem_",
        "_inplacevar_",
        "__builtins__",
        "__import__",
        "__debug__x",
        "print",
        "super",
        "printed",
        "x__roles__",
    )
    for form, source in {
        "by_assignment": "NAME = len\ndef attack():\n    return True",
        "by_a_tuple": "(NAME, x) = len, 1\ndef attack():\n    return True",
        "by_a_list": "[x, *NAME] = [1, 2]\ndef attack():\n    return True",
        "by_a_loop": "for NAME in [1]:\n    pass\ndef attack():\n    return True",
        "by_an_async_loop": "async def attack():\n    async for NAME in x():\n        pass\n    return True",
        "by_with": "def attack():\n    with 1 as (x, NAME):\n        pass\n    return True",
        "by_async_with": "async def attack():\n    async with 1 as NAME:\n        pass\n    return True",
        "by_an_error": "def attack():\n    try:\n        1 / 0\n    except Exception as NAME:\n        return True",
        "by_an_import": "import json as NAME\ndef attack():\n    return True",
        "by_a_from_import": "from json import loads as NAME\ndef attack():\n    return True",
        "by_a_parameter": "def attack(NAME=1):\n    return True",
        "by_a_positional_parameter": "def attack(NAME=1, /):\n    return True",
        "by_a_keyword_parameter": "def attack(*, NAME=1):\n    return True",
        "by_a_star_parameter": "def attack(*NAME):\n    return True",
        "by_a_double_star_parameter": "def attack(**NAME):\n    return True",
        "by_a_lambda": "def attack():\n    return (lambda NAME: True)(1)",
        "by_a_lambdas_positional": "def attack():\n    return (lambda NAME, /: True)(1)",
        "by_def": "def NAME():\n    pass\ndef attack():\n    return True",
        "by_async_def": "async def NAME():\n    pass\ndef attack():\n    return True",
        "by_async_parameters": "async def attack(NAME=1, /):\n    return True",
        "by_class": "class NAME:\n    pass\ndef attack():\n    return True",
        "by_global": "def attack():\n    global NAME\n    return True",
        "by_nonlocal": "def f(NAME_=1):\n    def g():\n        nonlocal NAME\n    return True\ndef attack():\n    return f()",
        "by_walrus": "def attack():\n    return (NAME := True)",
        "by_a_comprehension": "def attack():\n    return [True for NAME in [1]]",
        "by_a_star_pattern": "def attack():\n    match [1]:\n        case [*NAME]:\n            return True",
        "by_a_rest_pattern": "def attack():\n    match {}:\n        case {**NAME}:\n            return True",
        "by_an_as_pattern": "def attack():\n    match 1:\n        case int() as NAME:\n            return True",
        "by_a_capture_pattern": "def attack():\n    match 1:\n        case NAME:\n            return True",
        "by_an_or_pattern": "def attack():\n    match 1:\n        case (int() as NAME) | (str() as NAME):\n            return True",
        "by_a_class_pattern": "import datetime\ndef attack():\n    match datetime.date(2020, 1, 1):\n        case datetime.date(year=NAME):\n            return True",
        "by_del": "def attack():\n    del NAME\n    return True",
        "by_an_annotation": "NAME: int = 1\ndef attack():\n    return True",
        "by_a_bare_annotation": "NAME: int\ndef attack():\n    return True",
    }.items()
}

KINDS = {
    "type_aliases_are_refused": "type X = int\ndef attack():\n    return True",
    "type_aliases_do_not_run_expressions": "type X = ().__class__\ndef attack():\n    return X.__value__",
    "type_parameters_of_functions_are_refused": "def f[T](x):\n    return x\ndef attack():\n    return f(True)",
    "type_parameters_of_async_functions_are_refused": "async def attack[T]():\n    return True",
    "type_parameters_of_classes_are_refused": "class A[T]:\n    pass\ndef attack():\n    return A",
    "bounds_of_type_parameters_are_refused": "def f[T: ().__class__](x):\n    return x\ndef attack():\n    return f(True)",
    "defaults_of_type_parameters_are_refused": "def f[T = ().__class__](x):\n    return x\ndef attack():\n    return f(True)",
    "template_strings_are_refused": "def attack():\n    return t'{1}'",
    "template_strings_do_not_read_attributes": "def attack():\n    return t'{().__class__}'",
    "except_star_is_refused_in_async": "async def attack():\n    try:\n        pass\n    except* ValueError:\n        pass\n    return True",
    "except_without_parentheses_is_refused_or_plain": "def attack():\n    try:\n        1 / 0\n    except __import__('os'), ValueError:\n        return True",
    "lazy_imports_are_refused": "lazy import os\ndef attack():\n    return os",
    "relative_imports_are_refused": "from . import os\ndef attack():\n    return os",
    "relative_module_imports_are_refused": "from .json import loads\ndef attack():\n    return loads",
    "import_star_is_refused": "from json import *\ndef attack():\n    return loads",
    "unknown_futures_are_refused": "from __future__ import braces\ndef attack():\n    return True",
    "dunder_members_are_not_imported": "from json import __builtins__ as b\ndef attack():\n    return b",
    "dunder_members_are_not_imported_by_full_width": "from json import ＿＿builtins＿＿ as b\ndef attack():\n    return b",
    "dotted_imports_bind_no_hidden_package": "import urllib.parse\ndef attack():\n    return getattr(urllib, 'request', 0) or getattr(urllib, 'error', 0)",
    "dotted_members_are_not_imported": "import collections.abc as c\ndef attack():\n    return c",
    "return_in_finally_of_a_loop_is_refused": "def attack():\n    for x in [1]:\n        try:\n            stop()\n        finally:\n            for y in [1]:\n                return True",
    "continue_in_finally_is_refused": "def attack():\n    for x in [1, 2]:\n        try:\n            if x == 1:\n                stop()\n        finally:\n            continue\n    return True",
    "break_inside_with_in_finally_is_refused": "def attack():\n    while True:\n        try:\n            stop()\n        finally:\n            if True:\n                break\n    return True",
    "break_in_an_else_of_a_loop_in_finally_is_refused": "def attack():\n    while True:\n        try:\n            stop()\n        finally:\n            for x in []:\n                pass\n            else:\n                break\n    return True",
    "return_in_a_match_in_finally_is_refused": "def attack():\n    try:\n        stop()\n    finally:\n        match 1:\n            case _:\n                return True",
    "a_generator_does_not_park_a_time_out": "def g():\n    try:\n        stop()\n    finally:\n        yield 1\ndef attack():\n    next(g())\n    return True",
    "an_async_generator_does_not_park_a_time_out": "async def g():\n    try:\n        stop()\n    finally:\n        yield 1\nasync def attack():\n    async for x in g():\n        return True",
    "a_generator_does_not_go_on_when_it_is_collected": "ran = []\nkeep = []\ndef g():\n    try:\n        yield 1\n    finally:\n        ran.append(1)\ndef attack():\n    x = g()\n    next(x)\n    keep.append(x)\n    return ran",
    "a_with_block_does_not_end_when_it_is_collected": "ran = []\nkeep = []\nclass C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *a):\n        ran.append(1)\ndef g():\n    with C():\n        yield 1\ndef attack():\n    x = g()\n    next(x)\n    keep.append(x)\n    return ran",
    "an_async_generator_does_not_go_on_when_it_is_collected": "ran = []\nkeep = []\nasync def g():\n    try:\n        yield 1\n    finally:\n        ran.append(1)\nasync def attack():\n    a = g()\n    await anext(a)\n    keep.append(a)\n    return ran",
    "an_async_with_block_does_not_end_when_it_is_collected": "ran = []\nkeep = []\nclass C:\n    async def __aenter__(self):\n        return self\n    async def __aexit__(self, *a):\n        ran.append(1)\nasync def g():\n    async with C():\n        yield 1\nasync def attack():\n    a = g()\n    await anext(a)\n    keep.append(a)\n    return ran",
    "an_except_clause_is_not_evaluated_when_a_generator_is_collected": "ran = []\ndef kind():\n    ran.append(1)\n    return ValueError\ndef g():\n    try:\n        yield 1\n    except kind():\n        pass\ndef attack():\n    x = g()\n    next(x)\n    x = None\n    return ran",
    "a_property_is_not_asked_when_a_generator_is_collected": "ran = []\nclass P:\n    @property\n    def kind(self):\n        ran.append(1)\n        return ValueError\np = P()\ndef g():\n    try:\n        yield 1\n    except (KeyError, p.kind):\n        pass\ndef attack():\n    x = g()\n    next(x)\n    x = None\n    return ran",
    "a_delegate_is_not_closed_when_a_generator_is_collected": "ran = []\nclass I:\n    def __iter__(self):\n        return self\n    def __next__(self):\n        return 1\n    def close(self):\n        ran.append(1)\ndef g():\n    yield from I()\ndef attack():\n    x = g()\n    next(x)\n    x = None\n    return ran",
    "a_yield_in_a_default_inside_finally_does_not_run_when_it_is_collected": "ran = []\nkeep = []\ndef g():\n    try:\n        def f(x=(yield 1)):\n            pass\n    finally:\n        ran.append(1)\ndef attack():\n    x = g()\n    next(x)\n    keep.append(x)\n    return ran",
    "a_yield_in_a_lambdas_default_inside_finally_does_not_run_when_it_is_collected": "ran = []\nkeep = []\ndef g():\n    try:\n        f = lambda x=(yield 1): x\n    finally:\n        ran.append(1)\ndef attack():\n    x = g()\n    next(x)\n    keep.append(x)\n    return ran",
    "a_yield_in_a_decorator_inside_with_does_not_run_when_it_is_collected": "ran = []\nkeep = []\nclass C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *a):\n        ran.append(1)\ndef g():\n    with C():\n        @(yield 1)\n        def f():\n            pass\ndef attack():\n    x = g()\n    next(x)\n    keep.append(x)\n    return ran",
    "a_time_out_is_not_replaced_by_an_error_of_exit": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *a):\n        raise ValueError\ndef attack():\n    try:\n        with C():\n            stop()\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_by_an_error_of_aexit": "class C:\n    async def __aenter__(self):\n        return self\n    async def __aexit__(self, *a):\n        raise ValueError\nasync def attack():\n    try:\n        async with C():\n            stop()\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_by_an_error_of_an_exit_that_is_none": "class C:\n    def __enter__(self):\n        return self\n    def __exit__(self, *a):\n        return 1 / 0\ndef attack():\n    for x in [1]:\n        try:\n            with C(), C():\n                stop()\n        except ArithmeticError:\n            return True",
    "a_time_out_is_not_replaced_by_an_error_in_finally": "def attack():\n    try:\n        try:\n            stop()\n        finally:\n            1 / 0\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_by_an_error_kept_from_before": "try:\n    1 / 0\nexcept Exception as e:\n    kept = e\ndef attack():\n    try:\n        try:\n            stop()\n        finally:\n            raise kept from kept\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_by_an_error_deep_in_finally": "def f(n):\n    try:\n        1 / 0\n    except Exception:\n        if n:\n            f(n - 1)\n        raise ValueError from None\ndef attack():\n    try:\n        try:\n            stop()\n        finally:\n            try:\n                f(150)\n            finally:\n                raise OSError\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_in_an_awaited_finally": "async def f():\n    raise ValueError\nasync def attack():\n    try:\n        try:\n            stop()\n        finally:\n            await f()\n    except Exception:\n        return True",
    "a_time_out_is_not_replaced_by_stop_iteration_in_finally": "def g():\n    try:\n        stop()\n    finally:\n        next(iter([]))\ndef attack():\n    try:\n        g()\n    except StopIteration:\n        return True",
    "a_time_out_is_not_caught_as_an_object": "def attack():\n    try:\n        stop()\n    except object:\n        return True",
    "a_time_out_is_not_caught_by_a_tuple_of_everything": "def attack():\n    try:\n        stop()\n    except (Exception, type(None), int):\n        return True",
    "a_time_out_is_not_caught_by_a_nested_tuple": "def attack():\n    try:\n        stop()\n    except ((Exception, (OSError, )), MemoryError):\n        return True",
    "a_time_out_is_not_turned_into_stop_iteration": "def g():\n    stop()\n    yield 1\ndef attack():\n    return list(g()) == [] or [*g()] == []",
    "a_time_out_is_not_swallowed_by_sorted": "class K:\n    def __lt__(self, o):\n        stop()\ndef attack():\n    sorted([K(), K()])\n    return True",
    "a_time_out_is_not_swallowed_by_a_comparison": "class K:\n    def __eq__(self, o):\n        stop()\ndef attack():\n    return K() in [1] or True",
    "a_time_out_is_not_swallowed_by_a_dict": "class K:\n    def __hash__(self):\n        return 1\n    def __eq__(self, o):\n        stop()\ndef attack():\n    d = {K(): 1}\n    return d.get(K()) or d.setdefault(1, 2) or True",
    "a_time_out_is_not_swallowed_by_getattr": "class A:\n    @property\n    def x(self):\n        stop()\ndef attack():\n    return getattr(A(), 'x', True)",
    "a_time_out_is_not_swallowed_by_next": "class I:\n    def __iter__(self):\n        return self\n    def __next__(self):\n        stop()\ndef attack():\n    return next(iter(I()), True)",
    "a_time_out_is_not_swallowed_by_len": "class A:\n    def __len__(self):\n        stop()\ndef attack():\n    return list(A() for x in [1]) and bool(A()) or True",
    "a_time_out_is_not_swallowed_by_json": "import json\ndef d(o):\n    stop()\ndef attack():\n    try:\n        json.dumps(attack, default=d)\n    except Exception:\n        pass\n    return True",
    "a_time_out_is_not_swallowed_by_a_json_hook": "import json\ndef d(o):\n    stop()\ndef attack():\n    try:\n        json.loads('{}', object_hook=d)\n    except Exception:\n        pass\n    return True",
    "a_time_out_is_not_swallowed_by_re": "import re\ndef d(m):\n    stop()\ndef attack():\n    try:\n        re.sub('a', d, 'a')\n    except Exception:\n        pass\n    return True",
    "a_time_out_is_not_swallowed_by_reduce": "import functools\ndef d(a, b):\n    stop()\ndef attack():\n    try:\n        functools.reduce(d, [1, 2])\n    except Exception:\n        pass\n    return True",
    "a_time_out_is_not_swallowed_by_statistics": "import statistics\nclass N:\n    def as_integer_ratio(self):\n        stop()\ndef attack():\n    try:\n        statistics.mean([N()])\n    except Exception:\n        pass\n    return True",
    "a_time_out_is_not_swallowed_by_a_template": "import string\nclass M:\n    def __getitem__(self, k):\n        stop()\ndef attack():\n    string.Template('$a').safe_substitute(M())\n    return True",
    "a_time_out_is_not_swallowed_by_contains_of_meta": "class K:\n    def __hash__(self):\n        stop()\ndef attack():\n    return K() in {1} or True",
}
