package sbom

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The format of a hash table of Berkeley DB (src/dbinc/db_page.h there). Numbers have the byte
// order of the machine that made it, which the magic number shows.
const (
	bdbHashMagic = 0x061561
	bdbHead      = 26 // bytes of a page's header

	bdbUnsorted = 2 // types of pages
	bdbOverflow = 7
	bdbHash     = 13

	bdbInPage  = 1 // types of items
	bdbOffPage = 3
)

// bdb reads a hash table. Keys are at even indexes of a page, and their values after them.
type bdb struct {
	*blocks
	order binary.ByteOrder
	page  int64 // the size of a page
	last  uint32
}

// readBDB calls each with the headers of a database in the format of Berkeley DB.
func readBDB(b *blocks, each func(header []byte) error) error {
	head, err := b.at(0, 72)
	if err != nil {
		return err
	}
	d := bdb{blocks: b, order: binary.LittleEndian}
	if d.order.Uint32(head[12:]) != bdbHashMagic {
		d.order = binary.BigEndian
	}
	d.page, d.last = int64(d.order.Uint32(head[20:])), d.order.Uint32(head[32:])
	if d.order.Uint32(head[12:]) != bdbHashMagic || d.page < 512 || d.page > 64<<10 ||
		d.page&(d.page-1) != 0 || head[24] != 0 {
		return fmt.Errorf("%w: it is not a hash table of Berkeley DB", errDatabase)
	}
	for n := uint32(1); n <= d.last; n++ {
		p, err := d.at(int64(n)*d.page, d.page)
		if err != nil {
			return err
		}
		if kind := p[25]; kind != bdbUnsorted && kind != bdbHash {
			continue
		}
		if err := d.values(p, each); err != nil {
			return err
		}
	}
	return nil
}

// values calls each with the values of a page.
func (d *bdb) values(p []byte, each func(header []byte) error) error {
	items := int(d.order.Uint16(p[20:]))
	if bdbHead+2*items > len(p) {
		return fmt.Errorf("%w: a page has %d items", errDatabase, items)
	}
	offset := func(i int) int { return int(d.order.Uint16(p[bdbHead+2*i:])) }
	for i := 1; i < items; i += 2 {
		from, to := offset(i), offset(i-1)
		if from < bdbHead || from >= to || to > len(p) {
			return fmt.Errorf("%w: an item of a page is from %d to %d", errDatabase, from, to)
		}
		item := p[from:to]
		var value []byte
		switch {
		case item[0] == bdbInPage:
			value = item[1:]
		case item[0] == bdbOffPage && len(item) >= 12:
			var err error
			value, err = d.overflow(d.order.Uint32(item[4:]), d.order.Uint32(item[8:]))
			if err != nil {
				return err
			}
		}
		// The value of the key 0 is the number of the last package.
		if len(value) <= 8 {
			continue
		}
		if err := each(value); err != nil {
			return err
		}
	}
	return nil
}

// overflow returns a value that is in pages of its own, which form a list.
func (d *bdb) overflow(page, size uint32) ([]byte, error) {
	if size > maxPart {
		return nil, fmt.Errorf("a package has %d bytes, and at most %d are read", size, maxPart)
	}
	var value bytes.Buffer
	for page != 0 && value.Len() < int(size) {
		p, err := d.at(int64(page)*d.page, d.page)
		if err != nil {
			return nil, err
		}
		used := int(d.order.Uint16(p[22:]))
		if p[25] != bdbOverflow || used > len(p)-bdbHead {
			return nil, fmt.Errorf("%w: page %d is not part of a value", errDatabase, page)
		}
		value.Write(p[bdbHead : bdbHead+used])
		page = d.order.Uint32(p[16:])
	}
	if value.Len() != int(size) {
		return nil, fmt.Errorf("%w: a value has %d bytes instead of %d", errDatabase, value.Len(),
			size)
	}
	return value.Bytes(), nil
}
