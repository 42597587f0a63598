# How a reader waits, as `_pipe.pyx` says at its beginning. A reader awaits a `Receive`, its task waits for a `Waiter`,
# and a `Done` ends at once. A part of that module, in a file of its own to be read by itself.

cdef bint no_task_runs(object loop) except -1:
    if CURRENT_TASKS is not None:
        return PyDict_GetItemWithError(CURRENT_TASKS, loop) is NULL
    return asyncio.current_task(loop) is None


def _raise(error):
    raise error


@cython.final
@cython.freelist(64)
cdef class Waiter:
    """A parked reader's task waits for it: an object with the protocol that `asyncio.Task` wants of a future."""

    cdef Pipe pipe
    cdef object callback
    cdef object context
    cdef list more
    cdef object message
    cdef bint finished
    cdef bint was_cancelled
    cdef public bint _asyncio_future_blocking

    def get_loop(self):
        return self.pipe.loop

    def add_done_callback(self, callback, *, context=None):
        if self.finished:
            self.pipe.loop.call_soon(callback, self, context=context)
        elif self.callback is None:
            self.callback = callback
            self.context = context
        else:
            if self.more is None:
                self.more = []
            self.more.append((callback, context))

    def remove_done_callback(self, callback):
        cdef int removed = 0
        if self.callback == callback:
            self.callback = self.context = None
            removed = 1
        return removed

    def cancel(self, msg=None):
        if self.finished:
            return False
        self.was_cancelled = True
        self.message = msg
        if self.pipe._waiter is self:
            self.pipe._waiter = None
        self.finish(False)
        return True

    def cancelled(self):
        return self.was_cancelled

    def done(self):
        return self.finished

    def result(self):
        if self.was_cancelled:
            raise CancelledError() if self.message is None else CancelledError(self.message)
        if not self.finished:
            raise InvalidStateError("nothing has come yet")

    def exception(self):
        self.result()

    cdef int finish(self, bint step) except -1:
        """Call back: at once in the callback's context when `step`, else in the loop's next turn."""
        cdef object callback = self.callback
        cdef object context = self.context
        cdef object loop = self.pipe.loop
        self.finished = True
        self.callback = self.context = None
        if self.more is not None:
            for other, other_context in self.more:
                loop.call_soon(other, self, context=other_context)
            self.more = None
        if callback is None:
            return 0
        if step and context is not None and no_task_runs(loop):
            try:
                PyContext_Enter(context)
            except RuntimeError:  # it is entered already: an eager task's own
                loop.call_soon(callback, self, context=context)
                return 0
            try:
                callback(self.pipe.flusher.done)  # a task asks a Future for its result quicker than us
            except BaseException as error:  # KeyboardInterrupt, SystemExit: for the loop, not for the transport
                loop.call_soon(_raise, error)
            finally:
                PyContext_Exit(context)
        else:
            loop.call_soon(callback, self, context=context)
        return 0


@cython.final
@cython.freelist(64)
cdef class Receive:
    """The awaitable of one `read()` or `asgi_receive()`; a coroutine as far as `create_task` is concerned."""

    cdef Pipe pipe
    cdef Waiter waiter
    cdef int kind

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *result = NULL
        cdef int status = self.advance(&result)
        cdef object value = <object>result
        Py_DECREF(value)
        if status == SEND_NEXT:
            return value
        raise StopIteration(value)

    def send(self, value):
        return self.__next__()

    def throw(self, kind, value=None, traceback=None):
        self.close()
        if isinstance(kind, BaseException):
            raise kind
        raise kind if value is None else value

    def close(self):
        """Give up waiting."""
        if self.pipe is not None and self.waiter is not None and self.pipe._waiter is self.waiter:
            self.pipe._waiter = None
        self.waiter = None
        self.pipe = None

    cdef int advance(self, PyObject **result) except SEND_ERROR:
        """Store a new reference: to the message (SEND_RETURN), or to the object to wait for (SEND_NEXT)."""
        cdef Pipe pipe = self.pipe
        cdef Waiter waiter
        cdef object value
        cdef bint gives_way = False
        result[0] = NULL
        if pipe is None:
            raise RuntimeError("cannot await the same receive twice")
        if self.kind == READ or pipe.connect_taken:
            if pipe._inbox is not None:
                gives_way = self.waiter is None and pipe.has_read_enough()
            if gives_way or (pipe._inbox is None and pipe.close_code is None):
                if pipe._waiter is not None and pipe._waiter is not self.waiter:
                    raise RuntimeError(TWO_READERS)
                pipe._reads = 0
                waiter = Waiter.__new__(Waiter)
                waiter.pipe = pipe
                waiter._asyncio_future_blocking = True
                pipe._waiter = self.waiter = waiter
                if gives_way:
                    pipe.wait()
                Py_INCREF(waiter)
                result[0] = <PyObject *>waiter
                return SEND_NEXT
        self.pipe = None
        self.waiter = None
        value = pipe.take(self.kind)
        Py_INCREF(value)
        result[0] = <PyObject *>value
        return SEND_RETURN


cdef int receive_am_send(PyObject *receive, PyObject *argument, PyObject **result) except SEND_ERROR:
    return (<Receive>receive).advance(result)


@cython.final
cdef class Done:
    """An awaitable that is over at once, without a result; one serves all."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        if isinstance(kind, BaseException):
            raise kind
        raise kind if value is None else value

    def close(self):
        """Nothing to give up."""


cdef int done_am_send(PyObject *done, PyObject *argument, PyObject **result) except SEND_ERROR:
    Py_INCREF(None)
    result[0] = <PyObject *>None
    return SEND_RETURN


cdef Done DONE = Done()

antiphon_set_am_send(Done, <void *>done_am_send)
antiphon_set_am_send(Receive, <void *>receive_am_send)
