// The array behind the DRAM model: one read or write of a beat in a cycle, read data a cycle later.
module dram_storage #(
    parameter WIDTH = 16,
    parameter ADDRESS_BITS = 20
) (
    input wire clk,
    input wire [ADDRESS_BITS-1:0] address,
    input wire write,
    input wire [WIDTH-1:0] write_data,
    output reg [WIDTH-1:0] read_data
);
    reg [WIDTH-1:0] array[0:(1 << ADDRESS_BITS) - 1] /* verilator public_flat_rw */;
    always @(posedge clk) begin
        if (write) array[address] <= write_data;
        read_data <= array[address];
    end
endmodule
