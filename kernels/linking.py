"""A kernel's code stands once: the kernels that call it call it there.

Numba would copy what a kernel calls into its code, optimise it there once more, and make machine code of it once more:
the product of matrices in each of twelve convolutions. Here a caller holds but a name, the address of which is known
where the callee has been compiled or loaded. A caller that is loaded from disk has the callees loaded first: LLVM ends
the process where a name has no address.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from llvmlite import binding
from numba import types
from numba.core import sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.funcdesc import ExternalFunctionDescriptor

__all__ = ["linked"]

_known: dict[str, partial[None]] = {}  # by name, what loads the code, or compiles it


def linked(compiled: Any) -> Any:
    """The function, which others call where its code lies; for 0 and False there as for any number and flag."""
    compile_for, cache, context = compiled.compile, compiled._cache, compiled.targetctx
    save, named = cache.save_overload, set[str]()

    @global_compiler_lock
    def compile_and_name(signature: Any) -> Any:
        wanted = tuple(map(types.unliteral, sigutils.normalize_signature(signature)[0]))
        entry = compile_for(wanted)
        made = compiled.overloads[wanted]
        name = f"{compiled.__module__}.{compiled.__qualname__}{made.signature}"
        if name not in named:
            named.add(name)
            binding.add_symbol(name, made.library.get_pointer_to_function(made.fndesc.llvm_func_name))
            _known[name] = partial(_load, compiled.__module__, compiled.__qualname__, wanted)
            context.remove_user_function(entry)
            context.insert_user_function(entry, ExternalFunctionDescriptor(name, made.signature.return_type, wanted))
        return entry

    def save_with_names(signature: Any, made: Any) -> None:
        called = [function.name for function in made.library._final_module.functions if function.is_declaration]
        made.reload_init.extend(_known[name] for name in called if name in _known)
        save(signature, made)

    compiled.compile, cache.save_overload = compile_and_name, save_with_names
    return compiled


def _load(module: str, name: str, arguments: tuple[Any, ...]) -> None:
    """A kernel that others call is there before they are."""
    getattr(import_module(module), name).compile(arguments)
