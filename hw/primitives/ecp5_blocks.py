"""ECP5's block RAM: the shapes it has, and its cells as instances."""

from amaranth import Cat, ClockSignal, Const, Instance, Value

EBR_BITS = 16384
_DEPTHS = (16384, 8192, 4096, 2048, 1024, 512)


def chunk_depths(depth: int) -> list[int]:
    """The depths of the block shapes that a RAM of `depth` words is put together from.

    From the deepest shape on: deep and narrow blocks need no multiplexer.
    """
    smallest = _DEPTHS[-1]
    left = -(-depth // smallest) * smallest
    chunks = []
    while left:
        chunks.append(next(size for size in _DEPTHS if size <= left))
        left -= chunks[-1]
    return chunks


def dp16kd(
    *,
    write_address: Value,
    write_data: Value,
    write_mask: Value,
    read_address: Value,
    read_data: Value,
    read_enable: Value,
    registered: bool,
    blank: Value,
) -> Instance:
    """Port A writes, port B reads while `read_enable`, through the output register where
    `registered`, which `blank` resets.

    The narrow shapes leave the low address bits out. 16 bits are two bytes of 9 whose enables
    take the place of the lowest address bits.
    """
    unused = Const(0, 14 - len(write_address))
    addresses = {"A": Cat(unused, write_address), "B": Cat(unused, read_address)}
    lanes = list(range(len(write_data)))
    if len(write_mask) == 2:
        addresses["A"] = Cat(write_mask, unused[2:], write_address)
        lanes = [*range(8), *range(9, 17)]
    ports: dict[str, object] = {}
    for port, address in addresses.items():
        ports |= {f"i_AD{port}{i}": address[i] for i in range(14)}
        ports |= {f"i_CS{port}{i}": Const(0, 1) for i in range(3)}
        ports |= {f"i_CLK{port}": ClockSignal()}
        enable = Const(1, 1) if port == "A" else read_enable
        ports |= {f"i_CE{port}": enable, f"i_OCE{port}": enable}
        ports |= {f"p_DATA_WIDTH_{port}": {8: 9, 16: 18}.get(len(write_data), len(write_data))}
        ports |= {f"p_CSDECODE_{port}": "0b000", f"p_WRITEMODE_{port}": "NORMAL"}
        ports |= {f"p_CLK{port}MUX": f"CLK{port}"}
    ports |= {f"i_DIA{lane}": write_data[i] for i, lane in enumerate(lanes)}
    ports |= {f"o_DOB{lane}": read_data[i] for i, lane in enumerate(lanes)}
    return Instance(
        "DP16KD",
        i_RSTA=Const(0, 1),
        i_RSTB=blank,
        p_REGMODE_A="NOREG",
        p_REGMODE_B="OUTREG" if registered else "NOREG",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        p_GSR="DISABLED",
        i_WEA=write_mask.any(),
        i_WEB=Const(0, 1),
        **ports,
    )


def pdpw16kd(
    *,
    write_address: Value,
    write_data: Value,
    write_mask: Value,
    read_address: Value,
    read_data: Value,
    read_enable: Value,
    registered: bool,
    blank: Value,
) -> Instance:
    """512 words of four bytes of 9, or fewer; reads as dp16kd does."""
    lanes = [bit + bit // 8 for bit in range(len(write_data))]
    # The read address counts bits, as DP16KD's do.
    read = Cat(Const(0, 14 - len(read_address)), read_address)
    ports: dict[str, object] = {}
    ports |= {f"i_ADW{i}": write_address[i] for i in range(9)}
    ports |= {f"i_ADR{i}": read[i] for i in range(14)}
    ports |= {f"i_BE{i}": write_mask[i] if i < len(write_mask) else Const(0, 1) for i in range(4)}
    ports |= {f"i_DI{lane}": write_data[i] for i, lane in enumerate(lanes)}
    ports |= {f"o_DO{lane}": read_data[i] for i, lane in enumerate(lanes)}
    for port in "WR":
        ports |= {f"i_CS{port}{i}": Const(0, 1) for i in range(3)}
        ports |= {f"i_CLK{port}": ClockSignal(), f"p_CLK{port}MUX": f"CLK{port}"}
        ports |= {f"p_DATA_WIDTH_{port}": 36, f"p_CSDECODE_{port}": "0b000"}
    return Instance(
        "PDPW16KD",
        p_REGMODE="OUTREG" if registered else "NOREG",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        p_GSR="DISABLED",
        i_CEW=write_mask.any(),
        i_CER=read_enable,
        i_OCER=read_enable,
        i_RST=blank,
        **ports,
    )
