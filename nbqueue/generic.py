"""Actors written as classes: the class statement yields the actor.

A subclass of `GenericActor` with an inner class `Meta` is instantiated at once; its `perform` method is what
the actor runs. `Meta.abstract = True` keeps it a class, to be a base for others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from .actor import Actor, actor

if TYPE_CHECKING:
    from datetime import timedelta

    from .broker import Broker
    from .message import Message

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class _Performs(Protocol[P, R_co]):
    def perform(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class generic_actor(type):
    """Makes an actor of each class that is not abstract, and puts an instance in the class's place."""

    if TYPE_CHECKING:
        # A type checker sees a class where the program has the instance: these are its actor's.
        actor_name: str
        queue_name: str
        priority: int
        broker: Broker
        options: dict[str, Any]

        def send(cls: type[_Performs[P, R_co]], *args: P.args, **kwargs: P.kwargs) -> Message[R_co]: ...

        def message(cls: type[_Performs[P, R_co]], *args: P.args, **kwargs: P.kwargs) -> Message[R_co]: ...

        def send_with_options(
            cls: type[_Performs[P, R_co]],
            *,
            args: Any = (),
            kwargs: dict[str, Any] | None = None,
            delay: int | timedelta | None = None,
            **options: Any,
        ) -> Message[R_co]: ...

        def message_with_options(
            cls: type[_Performs[P, R_co]],
            *,
            args: Any = (),
            kwargs: dict[str, Any] | None = None,
            **options: Any,
        ) -> Message[R_co]: ...

    def __new__(
        metaclass, name: str, bases: tuple[type, ...], attributes: dict[str, Any], **keywords: Any
    ) -> Any:
        cls = super().__new__(metaclass, name, bases, attributes, **keywords)
        meta: Any = getattr(cls, "Meta", None)
        if getattr(meta, "abstract", False):
            # Children without a Meta of their own inherit this one, and are meant to be concrete.
            meta.abstract = False
            return cls
        names = [name for name in vars(meta) if not name.startswith("_")] if meta is not None else []
        options = {name: getattr(meta, name) for name in names if name != "abstract"}
        decorate = options.pop("actor", actor)
        instance = cls()
        instance.__actor__ = decorate(instance, **options) if options else decorate(instance)
        return instance


class GenericActor(metaclass=generic_actor):
    """Base of actors written as classes. Override `perform`; options go into `Meta`."""

    class Meta:
        abstract = True

    __actor__: Actor[Any, Any]

    @property
    def __name__(self) -> str:
        return type(self).__name__  # type: ignore[return-value]

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__.get("__actor__")
        if own is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(own, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.perform(*args, **kwargs)

    def perform(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the actor is for."""
        raise NotImplementedError(f"{type(self).__name__} does not implement perform()")
