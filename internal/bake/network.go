package bake

import (
	"crypto/rand"
	"crypto/sha1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// randomUUID returns a random UUID (RFC 9562, version 4).
func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return formatUUID(b, 4)
}

// formatUUID sets the version of a UUID and returns its text.
func formatUUID(b [16]byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// namespaces are the names of the namespaces of RFC 9562, whose UUIDs differ in one byte.
var namespaces = map[string]byte{"dns": 0x10, "url": 0x11, "oid": 0x12, "x500": 0x14}

// uuidFunction returns a function that makes a UUID of a name (RFC 9562, version 5).
func uuidFunction() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "namespace", Type: cty.String},
			{Name: "name", Type: cty.String}},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			space := [16]byte{0x6b, 0xa7, 0xb8, 0, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0, 0xc0,
				0x4f, 0xd4, 0x30, 0xc8}
			last, ok := namespaces[args[0].AsString()]
			if space[3] = last; !ok {
				return cty.NilVal, function.NewArgErrorf(0, "dns, url, oid or x500 is expected")
			}
			sum := sha1.Sum(append(space[:], args[1].AsString()...))
			return cty.StringVal(formatUUID([16]byte(sum[:16]), 5)), nil
		},
	})
}

// network parses the first argument of the cidr functions.
func network(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return p, function.NewArgErrorf(0, "%q is not a network such as 10.0.0.0/8", v.AsString())
	}
	return p.Masked(), nil
}

// whole returns a number that must be whole.
func whole(v cty.Value, argument int) (*big.Int, error) {
	n, accuracy := v.AsBigFloat().Int(nil)
	if accuracy != big.Exact || n.BitLen() > 128 {
		return nil, function.NewArgErrorf(argument, "a whole number is expected")
	}
	return n, nil
}

var errNoRoom = errors.New("the network has no such part")

// part returns the address of number n among the parts of a network with a longer prefix.
func part(p netip.Prefix, bits int, n *big.Int) (netip.Prefix, error) {
	total := p.Addr().BitLen()
	count := new(big.Int).Lsh(big.NewInt(1), uint(max(0, bits-p.Bits())))
	if n.Sign() < 0 { // from the end
		n = new(big.Int).Add(count, n)
	}
	if bits > total || bits < p.Bits() || n.Sign() < 0 || n.Cmp(count) >= 0 {
		return p, errNoRoom
	}
	address := new(big.Int).SetBytes(p.Addr().AsSlice())
	address.Add(address, new(big.Int).Lsh(n, uint(total-bits)))
	a, _ := netip.AddrFromSlice(address.FillBytes(make([]byte, total/8)))
	return netip.PrefixFrom(a, bits), nil
}

// ofNetwork returns a function of a network and numbers.
func ofNetwork(names []string, f func(netip.Prefix, []*big.Int) (string, error)) function.Function {
	spec := &function.Spec{Type: function.StaticReturnType(cty.String),
		Params: []function.Parameter{{Name: "network", Type: cty.String}}}
	for _, name := range names {
		spec.Params = append(spec.Params, function.Parameter{Name: name, Type: cty.Number})
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := network(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		numbers := make([]*big.Int, len(names))
		for i := range names {
			if numbers[i], err = whole(args[i+1], i+1); err != nil {
				return cty.NilVal, err
			}
		}
		s, err := f(p, numbers)
		return cty.StringVal(s), err
	}
	return function.New(spec)
}

// cidrHost returns a function for the address of a host in a network.
func cidrHost() function.Function {
	return ofNetwork([]string{"host"}, func(p netip.Prefix, n []*big.Int) (string, error) {
		host, err := part(p, p.Addr().BitLen(), n[0])
		return host.Addr().String(), err
	})
}

// cidrNetmask returns a function for the mask of a network.
func cidrNetmask() function.Function {
	return ofNetwork(nil, func(p netip.Prefix, _ []*big.Int) (string, error) {
		if !p.Addr().Is4() {
			return "", function.NewArgErrorf(0, "only IPv4 networks have a mask")
		}
		ones, _ := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(p.Bits())
		return ones.Addr().String(), nil
	})
}

// longer returns the number of bits of a prefix that has more bits than p.
func longer(p netip.Prefix, more *big.Int) int {
	if more.Sign() < 0 || more.Cmp(big.NewInt(128)) > 0 {
		return -1
	}
	return p.Bits() + int(more.Int64())
}

// cidrSubnet returns a function for a part of a network.
func cidrSubnet() function.Function {
	return ofNetwork([]string{"bits", "number"},
		func(p netip.Prefix, n []*big.Int) (string, error) {
			sub, err := part(p, longer(p, n[0]), n[1])
			return sub.String(), err
		})
}

// cidrSubnets returns a function for consecutive parts of a network, each with the given number of
// additional bits.
func cidrSubnets() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "network", Type: cty.String}},
		VarParam: &function.Parameter{Name: "bits", Type: cty.Number},
		Type:     function.StaticReturnType(cty.List(cty.String)),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			p, err := network(args[0])
			if err != nil {
				return cty.NilVal, err
			}
			list := []cty.Value{}
			used := new(big.Int) // addresses
			for i, arg := range args[1:] {
				more, err := whole(arg, i+1)
				if err != nil {
					return cty.NilVal, err
				}
				bits := longer(p, more)
				size := new(big.Int).Lsh(big.NewInt(1), uint(max(0, p.Addr().BitLen()-bits)))
				n, rest := new(big.Int).DivMod(used, size, new(big.Int))
				if rest.Sign() > 0 {
					n.Add(n, big.NewInt(1))
				}
				sub, err := part(p, bits, n)
				if err != nil {
					return cty.NilVal, function.NewArgError(i+1, err)
				}
				used.Mul(n.Add(n, big.NewInt(1)), size)
				list = append(list, cty.StringVal(sub.String()))
			}
			if len(list) == 0 {
				return cty.ListValEmpty(cty.String), nil
			}
			return cty.ListVal(list), nil
		},
	})
}
