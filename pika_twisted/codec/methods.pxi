# Methods and their arguments.

# One row per method: index, name, arguments in the order of the wire, each with its type.
# B octet, H short, I long, Q long long, s short string, S long string (bytes, as pika has it),
# L the same as text, F table, t bit; bits in a row share octets.
cdef str METHOD_LAYOUTS = """
000a000a Connection.Start     version_major:B version_minor:B server_properties:F mechanisms:S locales:S
000a000b Connection.StartOk   client_properties:F mechanism:s response:S locale:s
000a0014 Connection.Secure    challenge:S
000a0015 Connection.SecureOk  response:S
000a001e Connection.Tune      channel_max:H frame_max:I heartbeat:H
000a001f Connection.TuneOk    channel_max:H frame_max:I heartbeat:H
000a0028 Connection.Open      virtual_host:s capabilities:s insist:t
000a0029 Connection.OpenOk    known_hosts:s
000a0032 Connection.Close     reply_code:H reply_text:s class_id:H method_id:H
000a0033 Connection.CloseOk
000a003c Connection.Blocked   reason:s
000a003d Connection.Unblocked
000a0046 Connection.UpdateSecret  new_secret:L reason:s
000a0047 Connection.UpdateSecretOk
0014000a Channel.Open         out_of_band:s
0014000b Channel.OpenOk       channel_id:S
00140014 Channel.Flow         active:t
00140015 Channel.FlowOk       active:t
00140028 Channel.Close        reply_code:H reply_text:s class_id:H method_id:H
00140029 Channel.CloseOk
001e000a Access.Request       realm:s exclusive:t passive:t active:t write:t read:t
001e000b Access.RequestOk     ticket:H
0028000a Exchange.Declare     ticket:H exchange:s type:s passive:t durable:t auto_delete:t internal:t nowait:t arguments:F
0028000b Exchange.DeclareOk
00280014 Exchange.Delete      ticket:H exchange:s if_unused:t nowait:t
00280015 Exchange.DeleteOk
0028001e Exchange.Bind        ticket:H destination:s source:s routing_key:s nowait:t arguments:F
0028001f Exchange.BindOk
00280028 Exchange.Unbind      ticket:H destination:s source:s routing_key:s nowait:t arguments:F
00280033 Exchange.UnbindOk
0032000a Queue.Declare        ticket:H queue:s passive:t durable:t exclusive:t auto_delete:t nowait:t arguments:F
0032000b Queue.DeclareOk      queue:s message_count:I consumer_count:I
00320014 Queue.Bind           ticket:H queue:s exchange:s routing_key:s nowait:t arguments:F
00320015 Queue.BindOk
0032001e Queue.Purge          ticket:H queue:s nowait:t
0032001f Queue.PurgeOk        message_count:I
00320028 Queue.Delete         ticket:H queue:s if_unused:t if_empty:t nowait:t
00320029 Queue.DeleteOk       message_count:I
00320032 Queue.Unbind         ticket:H queue:s exchange:s routing_key:s arguments:F
00320033 Queue.UnbindOk
003c000a Basic.Qos            prefetch_size:I prefetch_count:H global_qos:t
003c000b Basic.QosOk
003c0014 Basic.Consume        ticket:H queue:s consumer_tag:s no_local:t no_ack:t exclusive:t nowait:t arguments:F
003c0015 Basic.ConsumeOk      consumer_tag:s
003c001e Basic.Cancel         consumer_tag:s nowait:t
003c001f Basic.CancelOk       consumer_tag:s
003c0028 Basic.Publish        ticket:H exchange:s routing_key:s mandatory:t immediate:t
003c0032 Basic.Return         reply_code:H reply_text:s exchange:s routing_key:s
003c003c Basic.Deliver        consumer_tag:s delivery_tag:Q redelivered:t exchange:s routing_key:s
003c0046 Basic.Get            ticket:H queue:s no_ack:t
003c0047 Basic.GetOk          delivery_tag:Q redelivered:t exchange:s routing_key:s message_count:I
003c0048 Basic.GetEmpty       cluster_id:s
003c0050 Basic.Ack            delivery_tag:Q multiple:t
003c005a Basic.Reject         delivery_tag:Q requeue:t
003c0064 Basic.RecoverAsync   requeue:t
003c006e Basic.Recover        requeue:t
003c006f Basic.RecoverOk
003c0078 Basic.Nack           delivery_tag:Q multiple:t requeue:t
0055000a Confirm.Select       nowait:t
0055000b Confirm.SelectOk
005a000a Tx.Select
005a000b Tx.SelectOk
005a0014 Tx.Commit
005a0015 Tx.CommitOk
005a001e Tx.Rollback
005a001f Tx.RollbackOk
"""


@cython.final
cdef class Layout:
    """How the arguments of one method lie in its frame."""

    cdef object method_class
    cdef tuple names
    cdef bytes types

    def __init__(self, method_class, arguments):
        pairs = [argument.split(":") for argument in arguments]
        self.method_class = method_class
        self.names = tuple(sys.intern(name) for name, _ in pairs)
        self.types = "".join(type for _, type in pairs).encode()


cdef dict method_layouts():
    rows = (row.split() for row in METHOD_LAYOUTS.strip().splitlines())
    return {
        int(index, 16): Layout(spec.methods[int(index, 16)], arguments)
        for index, _, *arguments in rows
    }


cdef dict LAYOUTS = method_layouts()


cdef str method_name(uint32_t index):
    return (<Layout>LAYOUTS[index]).method_class.NAME


cdef object read_method(Layout layout, Cursor* cursor, int max_nesting):
    """An object of pika's class, its attributes set as pika's decoder sets them."""
    method = bare_object(layout.method_class, 0)
    cdef octets types = <octets>PyBytes_AS_STRING(layout.types)
    cdef Py_ssize_t i
    cdef int bit = 8       # the next bit of bit_octet; 8: none left, or no bits were read before
    cdef int bit_octet = 0
    for i in range(PyBytes_GET_SIZE(layout.types)):
        if types[i] == c"t":
            if bit == 8:
                bit_octet = take(cursor, 1)[0]
                bit = 0
            value = ((bit_octet >> bit) & 1) != 0
            bit += 1
        else:
            bit = 8
            value = read_argument(types[i], cursor, max_nesting)
        setattr(method, layout.names[i], value)
    return method


cdef object read_argument(unsigned char type, Cursor* cursor, int max_nesting):
    if type == c"s":
        return short_string(cursor)
    elif type == c"r":
        return repeated_string(cursor)
    elif type == c"Q":
        return load_u64(take(cursor, 8))
    elif type == c"H":
        return load_u16(take(cursor, 2))
    elif type == c"I":
        return load_u32(take(cursor, 4))
    elif type == c"B":
        return take(cursor, 1)[0]
    elif type == c"S":
        return long_string(cursor)
    elif type == c"L":
        return long_text(cursor)
    return repeated_table(cursor, max_nesting)  # F
