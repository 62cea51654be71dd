// The paths of paths.c in Go: path8_3 is called by path8_4, and so on up to what main calls.
package main

var sink uint64

func work(n uint64, rounds uint64) uint64 {
	for round := uint64(0); round < rounds; round++ {
		sink += round ^ n
	}
	return n
}

func main() {
	for {
		sink += path8_7(1) + path16_15(1) + path24_23(1) + path32_31(1) + path40_39(1)
	}
}

//go:noinline
func path8_0(n uint64) uint64 { return work(n, 4000) }

//go:noinline
func path8_1(n uint64) uint64 { return work(n, 20) + path8_0(n+1) }

//go:noinline
func path8_2(n uint64) uint64 { return work(n, 20) + path8_1(n+1) }

//go:noinline
func path8_3(n uint64) uint64 { return work(n, 20) + path8_2(n+1) }

//go:noinline
func path8_4(n uint64) uint64 { return work(n, 20) + path8_3(n+1) }

//go:noinline
func path8_5(n uint64) uint64 { return work(n, 20) + path8_4(n+1) }

//go:noinline
func path8_6(n uint64) uint64 { return work(n, 20) + path8_5(n+1) }

//go:noinline
func path8_7(n uint64) uint64 { return work(n, 20) + path8_6(n+1) }

//go:noinline
func path16_0(n uint64) uint64 { return work(n, 4000) }

//go:noinline
func path16_1(n uint64) uint64 { return work(n, 20) + path16_0(n+1) }

//go:noinline
func path16_2(n uint64) uint64 { return work(n, 20) + path16_1(n+1) }

//go:noinline
func path16_3(n uint64) uint64 { return work(n, 20) + path16_2(n+1) }

//go:noinline
func path16_4(n uint64) uint64 { return work(n, 20) + path16_3(n+1) }

//go:noinline
func path16_5(n uint64) uint64 { return work(n, 20) + path16_4(n+1) }

//go:noinline
func path16_6(n uint64) uint64 { return work(n, 20) + path16_5(n+1) }

//go:noinline
func path16_7(n uint64) uint64 { return work(n, 20) + path16_6(n+1) }

//go:noinline
func path16_8(n uint64) uint64 { return work(n, 20) + path16_7(n+1) }

//go:noinline
func path16_9(n uint64) uint64 { return work(n, 20) + path16_8(n+1) }

//go:noinline
func path16_10(n uint64) uint64 { return work(n, 20) + path16_9(n+1) }

//go:noinline
func path16_11(n uint64) uint64 { return work(n, 20) + path16_10(n+1) }

//go:noinline
func path16_12(n uint64) uint64 { return work(n, 20) + path16_11(n+1) }

//go:noinline
func path16_13(n uint64) uint64 { return work(n, 20) + path16_12(n+1) }

//go:noinline
func path16_14(n uint64) uint64 { return work(n, 20) + path16_13(n+1) }

//go:noinline
func path16_15(n uint64) uint64 { return work(n, 20) + path16_14(n+1) }

//go:noinline
func path24_0(n uint64) uint64 { return work(n, 4000) }

//go:noinline
func path24_1(n uint64) uint64 { return work(n, 20) + path24_0(n+1) }

//go:noinline
func path24_2(n uint64) uint64 { return work(n, 20) + path24_1(n+1) }

//go:noinline
func path24_3(n uint64) uint64 { return work(n, 20) + path24_2(n+1) }

//go:noinline
func path24_4(n uint64) uint64 { return work(n, 20) + path24_3(n+1) }

//go:noinline
func path24_5(n uint64) uint64 { return work(n, 20) + path24_4(n+1) }

//go:noinline
func path24_6(n uint64) uint64 { return work(n, 20) + path24_5(n+1) }

//go:noinline
func path24_7(n uint64) uint64 { return work(n, 20) + path24_6(n+1) }

//go:noinline
func path24_8(n uint64) uint64 { return work(n, 20) + path24_7(n+1) }

//go:noinline
func path24_9(n uint64) uint64 { return work(n, 20) + path24_8(n+1) }

//go:noinline
func path24_10(n uint64) uint64 { return work(n, 20) + path24_9(n+1) }

//go:noinline
func path24_11(n uint64) uint64 { return work(n, 20) + path24_10(n+1) }

//go:noinline
func path24_12(n uint64) uint64 { return work(n, 20) + path24_11(n+1) }

//go:noinline
func path24_13(n uint64) uint64 { return work(n, 20) + path24_12(n+1) }

//go:noinline
func path24_14(n uint64) uint64 { return work(n, 20) + path24_13(n+1) }

//go:noinline
func path24_15(n uint64) uint64 { return work(n, 20) + path24_14(n+1) }

//go:noinline
func path24_16(n uint64) uint64 { return work(n, 20) + path24_15(n+1) }

//go:noinline
func path24_17(n uint64) uint64 { return work(n, 20) + path24_16(n+1) }

//go:noinline
func path24_18(n uint64) uint64 { return work(n, 20) + path24_17(n+1) }

//go:noinline
func path24_19(n uint64) uint64 { return work(n, 20) + path24_18(n+1) }

//go:noinline
func path24_20(n uint64) uint64 { return work(n, 20) + path24_19(n+1) }

//go:noinline
func path24_21(n uint64) uint64 { return work(n, 20) + path24_20(n+1) }

//go:noinline
func path24_22(n uint64) uint64 { return work(n, 20) + path24_21(n+1) }

//go:noinline
func path24_23(n uint64) uint64 { return work(n, 20) + path24_22(n+1) }

//go:noinline
func path32_0(n uint64) uint64 { return work(n, 4000) }

//go:noinline
func path32_1(n uint64) uint64 { return work(n, 20) + path32_0(n+1) }

//go:noinline
func path32_2(n uint64) uint64 { return work(n, 20) + path32_1(n+1) }

//go:noinline
func path32_3(n uint64) uint64 { return work(n, 20) + path32_2(n+1) }

//go:noinline
func path32_4(n uint64) uint64 { return work(n, 20) + path32_3(n+1) }

//go:noinline
func path32_5(n uint64) uint64 { return work(n, 20) + path32_4(n+1) }

//go:noinline
func path32_6(n uint64) uint64 { return work(n, 20) + path32_5(n+1) }

//go:noinline
func path32_7(n uint64) uint64 { return work(n, 20) + path32_6(n+1) }

//go:noinline
func path32_8(n uint64) uint64 { return work(n, 20) + path32_7(n+1) }

//go:noinline
func path32_9(n uint64) uint64 { return work(n, 20) + path32_8(n+1) }

//go:noinline
func path32_10(n uint64) uint64 { return work(n, 20) + path32_9(n+1) }

//go:noinline
func path32_11(n uint64) uint64 { return work(n, 20) + path32_10(n+1) }

//go:noinline
func path32_12(n uint64) uint64 { return work(n, 20) + path32_11(n+1) }

//go:noinline
func path32_13(n uint64) uint64 { return work(n, 20) + path32_12(n+1) }

//go:noinline
func path32_14(n uint64) uint64 { return work(n, 20) + path32_13(n+1) }

//go:noinline
func path32_15(n uint64) uint64 { return work(n, 20) + path32_14(n+1) }

//go:noinline
func path32_16(n uint64) uint64 { return work(n, 20) + path32_15(n+1) }

//go:noinline
func path32_17(n uint64) uint64 { return work(n, 20) + path32_16(n+1) }

//go:noinline
func path32_18(n uint64) uint64 { return work(n, 20) + path32_17(n+1) }

//go:noinline
func path32_19(n uint64) uint64 { return work(n, 20) + path32_18(n+1) }

//go:noinline
func path32_20(n uint64) uint64 { return work(n, 20) + path32_19(n+1) }

//go:noinline
func path32_21(n uint64) uint64 { return work(n, 20) + path32_20(n+1) }

//go:noinline
func path32_22(n uint64) uint64 { return work(n, 20) + path32_21(n+1) }

//go:noinline
func path32_23(n uint64) uint64 { return work(n, 20) + path32_22(n+1) }

//go:noinline
func path32_24(n uint64) uint64 { return work(n, 20) + path32_23(n+1) }

//go:noinline
func path32_25(n uint64) uint64 { return work(n, 20) + path32_24(n+1) }

//go:noinline
func path32_26(n uint64) uint64 { return work(n, 20) + path32_25(n+1) }

//go:noinline
func path32_27(n uint64) uint64 { return work(n, 20) + path32_26(n+1) }

//go:noinline
func path32_28(n uint64) uint64 { return work(n, 20) + path32_27(n+1) }

//go:noinline
func path32_29(n uint64) uint64 { return work(n, 20) + path32_28(n+1) }

//go:noinline
func path32_30(n uint64) uint64 { return work(n, 20) + path32_29(n+1) }

//go:noinline
func path32_31(n uint64) uint64 { return work(n, 20) + path32_30(n+1) }

//go:noinline
func path40_0(n uint64) uint64 { return work(n, 4000) }

//go:noinline
func path40_1(n uint64) uint64 { return work(n, 20) + path40_0(n+1) }

//go:noinline
func path40_2(n uint64) uint64 { return work(n, 20) + path40_1(n+1) }

//go:noinline
func path40_3(n uint64) uint64 { return work(n, 20) + path40_2(n+1) }

//go:noinline
func path40_4(n uint64) uint64 { return work(n, 20) + path40_3(n+1) }

//go:noinline
func path40_5(n uint64) uint64 { return work(n, 20) + path40_4(n+1) }

//go:noinline
func path40_6(n uint64) uint64 { return work(n, 20) + path40_5(n+1) }

//go:noinline
func path40_7(n uint64) uint64 { return work(n, 20) + path40_6(n+1) }

//go:noinline
func path40_8(n uint64) uint64 { return work(n, 20) + path40_7(n+1) }

//go:noinline
func path40_9(n uint64) uint64 { return work(n, 20) + path40_8(n+1) }

//go:noinline
func path40_10(n uint64) uint64 { return work(n, 20) + path40_9(n+1) }

//go:noinline
func path40_11(n uint64) uint64 { return work(n, 20) + path40_10(n+1) }

//go:noinline
func path40_12(n uint64) uint64 { return work(n, 20) + path40_11(n+1) }

//go:noinline
func path40_13(n uint64) uint64 { return work(n, 20) + path40_12(n+1) }

//go:noinline
func path40_14(n uint64) uint64 { return work(n, 20) + path40_13(n+1) }

//go:noinline
func path40_15(n uint64) uint64 { return work(n, 20) + path40_14(n+1) }

//go:noinline
func path40_16(n uint64) uint64 { return work(n, 20) + path40_15(n+1) }

//go:noinline
func path40_17(n uint64) uint64 { return work(n, 20) + path40_16(n+1) }

//go:noinline
func path40_18(n uint64) uint64 { return work(n, 20) + path40_17(n+1) }

//go:noinline
func path40_19(n uint64) uint64 { return work(n, 20) + path40_18(n+1) }

//go:noinline
func path40_20(n uint64) uint64 { return work(n, 20) + path40_19(n+1) }

//go:noinline
func path40_21(n uint64) uint64 { return work(n, 20) + path40_20(n+1) }

//go:noinline
func path40_22(n uint64) uint64 { return work(n, 20) + path40_21(n+1) }

//go:noinline
func path40_23(n uint64) uint64 { return work(n, 20) + path40_22(n+1) }

//go:noinline
func path40_24(n uint64) uint64 { return work(n, 20) + path40_23(n+1) }

//go:noinline
func path40_25(n uint64) uint64 { return work(n, 20) + path40_24(n+1) }

//go:noinline
func path40_26(n uint64) uint64 { return work(n, 20) + path40_25(n+1) }

//go:noinline
func path40_27(n uint64) uint64 { return work(n, 20) + path40_26(n+1) }

//go:noinline
func path40_28(n uint64) uint64 { return work(n, 20) + path40_27(n+1) }

//go:noinline
func path40_29(n uint64) uint64 { return work(n, 20) + path40_28(n+1) }

//go:noinline
func path40_30(n uint64) uint64 { return work(n, 20) + path40_29(n+1) }

//go:noinline
func path40_31(n uint64) uint64 { return work(n, 20) + path40_30(n+1) }

//go:noinline
func path40_32(n uint64) uint64 { return work(n, 20) + path40_31(n+1) }

//go:noinline
func path40_33(n uint64) uint64 { return work(n, 20) + path40_32(n+1) }

//go:noinline
func path40_34(n uint64) uint64 { return work(n, 20) + path40_33(n+1) }

//go:noinline
func path40_35(n uint64) uint64 { return work(n, 20) + path40_34(n+1) }

//go:noinline
func path40_36(n uint64) uint64 { return work(n, 20) + path40_35(n+1) }

//go:noinline
func path40_37(n uint64) uint64 { return work(n, 20) + path40_36(n+1) }

//go:noinline
func path40_38(n uint64) uint64 { return work(n, 20) + path40_37(n+1) }

//go:noinline
func path40_39(n uint64) uint64 { return work(n, 20) + path40_38(n+1) }
