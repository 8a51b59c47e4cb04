package blocks

// combineCRC returns the CRC-32 (IEEE) of two byte strings one after the other, from their CRCs and
// the length of the second. The CRC of the first is a polynomial over GF(2); size zero bytes after
// it multiply it by x^(8*size) modulo the CRC's polynomial.
func combineCRC(first, second uint32, size int64) uint32 {
	return multiply(power(uint64(size)*8), first) ^ second
}

// reversed is the polynomial of CRC-32, its highest coefficient in the lowest bit.
const reversed = 0xedb88320

// multiply returns the product of two polynomials modulo the CRC's, with the coefficient of x^0 in
// the highest bit.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		b = b>>1 ^ reversed&-(b&1)
	}
	return product
}

// power returns x^n modulo the CRC's polynomial.
func power(n uint64) uint32 {
	result, square := uint32(1<<31), uint32(1<<30) // x^0 and x^1
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			result = multiply(square, result)
		}
		square = multiply(square, square)
	}
	return result
}
