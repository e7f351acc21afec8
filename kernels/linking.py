"""A kernel's code stands once: the kernels that call it call it there.

Numba would copy what a kernel calls into its code, optimise it there once more, and make machine code of it once more:
the product of matrices in each of twelve convolutions. Here a caller holds but a name, whose address LLVM is told when
the callee has been compiled, or loaded from disk (`add_symbol`). A name without an address would crash the process, so
callees are always there before their callers: a caller is compiled after what it calls, and with its code Numba keeps
a list of functions, `reload_init`, that it calls before it unpacks that code (`CompileResult._rebuild`).

Only what can be found again by its module and name is linked. A kernel of a function's own, or of a script, is copied
into its callers as ever.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import Any

from llvmlite import binding
from numba import types
from numba.core import sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.errors import NumbaError
from numba.core.funcdesc import ExternalFunctionDescriptor

__all__ = ["linked"]

_known: dict[str, partial[None]] = {}  # for each name that has an address, what sees to it that it has one (`_load`)


def linked(compiled: Any) -> Any:
    """The function, which others call where its code lies.

    Numba tries types of their own for constants, `Literal[int](0)`; they are compiled as any number or flag.
    """
    compile_for, cache, context = compiled.compile, compiled._cache, compiled.targetctx
    save, load = cache.save_overload, cache.load_overload
    module, place, named = compiled.__module__, compiled.__qualname__, set[str]()

    @global_compiler_lock
    def compile_and_name(signature: Any) -> Any:
        wanted = tuple(map(types.unliteral, sigutils.normalize_signature(signature)[0]))
        entry = compile_for(wanted)
        made = compiled.overloads[wanted]
        name = f"{module}.{place}{made.signature}"
        if name not in named and module != "__main__" and getattr(sys.modules.get(module), place, None) is compiled:
            binding.add_symbol(name, made.library.get_pointer_to_function(made.fndesc.llvm_func_name))
            _known[name] = partial(_load, name, module, place, wanted)
            context.remove_user_function(entry)  # by which callers would have copied it
            context.insert_user_function(entry, ExternalFunctionDescriptor(name, made.signature.return_type, wanted))
            named.add(name)
        return entry

    def save_with_names(signature: Any, made: Any) -> None:
        # What is declared and not defined stands elsewhere, whether called here or in what has been copied into it.
        called = [function.name for function in made.library._final_module.functions if function.is_declaration]
        made.reload_init.extend(_known[name] for name in called if name in _known)
        save(signature, made)

    def load_if_all_is_there(signature: Any, target: Any) -> Any:
        try:
            return load(signature, target)
        except (LookupError, ImportError, AttributeError, NumbaError):  # of `_load`
            return None  # it is compiled anew

    compiled.compile, cache.save_overload, cache.load_overload = compile_and_name, save_with_names, load_if_all_is_there
    return compiled


def _load(name: str, module: str, place: str, arguments: tuple[Any, ...]) -> None:
    """See that the name has an address: that kernel, compiled for these arguments. Kept with the code of its callers.

    Raises LookupError, ImportError, AttributeError or NumbaError where there is no such kernel any more.
    """
    if name not in _known:
        getattr(import_module(module), place).compile(arguments)
    if name not in _known:
        raise LookupError(f"{name} is not what is compiled for {arguments} any more")
