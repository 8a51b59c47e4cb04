package sbom

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The SQLite format (https://www.sqlite.org/fileformat.html).
const (
	sqliteMagic    = "SQLite format 3\x00"
	sqliteHead     = 100 // bytes of the file's header, on the first page
	sqliteInterior = 5   // types of pages of a table
	sqliteLeaf     = 13
	maxSQLiteDepth = 20
)

// sqlite reads the tables of a database.
type sqlite struct {
	*blocks
	page   int64 // the size of a page
	usable int64 // without the reserved part at the end
}

// readSQLite calls each with the headers of a database in the format of SQLite: the column blob of
// the table Packages.
func readSQLite(b *blocks, each func(header []byte) error) error {
	head, err := b.at(0, sqliteHead)
	if err != nil {
		return err
	}
	d := sqlite{blocks: b, page: int64(binary.BigEndian.Uint16(head[16:]))}
	if d.page == 1 {
		d.page = 64 << 10
	}
	d.usable = d.page - int64(head[20])
	if string(head[:16]) != sqliteMagic || d.page < 512 || d.page&(d.page-1) != 0 ||
		d.usable < 480 {
		return fmt.Errorf("%w: it is not in the format of SQLite", errDatabase)
	}
	root := int64(0)
	// The columns of the schema are type, name, tbl_name, rootpage and sql.
	err = d.table(1, 0, func(row [][]byte) error {
		if len(row) >= 4 && string(row[0]) == "table" && string(row[1]) == "Packages" {
			root = integer(row[3])
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root <= 0 {
		return fmt.Errorf("%w: it has no table Packages", errDatabase)
	}
	return d.table(root, 0, func(row [][]byte) error {
		if len(row) < 2 || len(row[1]) == 0 {
			return nil
		}
		return each(row[1])
	})
}

// table calls do for each row of the table whose root is a page. The values of a row are valid
// until do returns.
func (d *sqlite) table(page int64, depth int, do func(row [][]byte) error) error {
	if page < 1 || page > math.MaxUint32 || depth > maxSQLiteDepth {
		return fmt.Errorf("%w: page %d at depth %d", errDatabase, page, depth)
	}
	p, err := d.at((page-1)*d.page, d.page)
	if err != nil {
		return err
	}
	head := p
	if page == 1 {
		head = p[sqliteHead:]
	}
	cells := int(binary.BigEndian.Uint16(head[3:]))
	start := 8
	if head[0] == sqliteInterior {
		start = 12
	} else if head[0] != sqliteLeaf {
		return fmt.Errorf("%w: page %d is not part of a table", errDatabase, page)
	}
	if start+2*cells > len(head) {
		return fmt.Errorf("%w: page %d has %d cells", errDatabase, page, cells)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[start+2*i:]))
		if at+4 > int(d.usable) {
			return fmt.Errorf("%w: page %d has a cell at %d", errDatabase, page, at)
		}
		if head[0] == sqliteInterior {
			err = d.table(int64(binary.BigEndian.Uint32(p[at:])), depth+1, do)
		} else {
			err = d.row(p[at:d.usable], do)
		}
		if err != nil {
			return err
		}
	}
	if head[0] == sqliteInterior {
		return d.table(int64(binary.BigEndian.Uint32(head[8:])), depth+1, do)
	}
	return nil
}

// row reads a cell of a leaf: the size of the record, the number of the row, and the record. The
// end of a long record is in a list of other pages.
func (d *sqlite) row(cell []byte, do func(row [][]byte) error) error {
	size, n := varint(cell)
	if n == 0 || size > maxPart {
		return fmt.Errorf("%w: a record of %d bytes", errDatabase, size)
	}
	_, m := varint(cell[n:])
	cell = cell[n+m:]
	local := int64(size)
	if most := d.usable - 35; local > most {
		least := (d.usable-12)*32/255 - 23
		if local = least + (local-least)%(d.usable-4); local > most {
			local = least
		}
	}
	if m == 0 || local > int64(len(cell)) {
		return fmt.Errorf("%w: a record is not on its page", errDatabase)
	}
	record := cell[:local:local]
	if local < int64(size) {
		if int64(len(cell)) < local+4 {
			return fmt.Errorf("%w: a record is not on its page", errDatabase)
		}
		var err error
		next := binary.BigEndian.Uint32(cell[local:])
		if record, err = d.overflow(record, next, int64(size)); err != nil {
			return err
		}
	}
	row, ok := columns(record)
	if !ok {
		return fmt.Errorf("%w: a record of %d bytes is not valid", errDatabase, len(record))
	}
	return do(row)
}

// overflow appends the rest of a record to its beginning.
func (d *sqlite) overflow(record []byte, page uint32, size int64) ([]byte, error) {
	for int64(len(record)) < size {
		if page == 0 {
			return nil, fmt.Errorf("%w: a record is not complete", errDatabase)
		}
		p, err := d.at((int64(page)-1)*d.page, d.page)
		if err != nil {
			return nil, err
		}
		page = binary.BigEndian.Uint32(p)
		record = append(record, p[4:min(d.usable, 4+size-int64(len(record)))]...)
	}
	return record, nil
}

// maxColumns limits the columns of a record. The tables that are read have at most five.
const maxColumns = 100

// columns returns the columns of a record: the size of its header, the type of each column, and
// then the values.
func columns(record []byte) (row [][]byte, ok bool) {
	size, n := varint(record)
	if n == 0 || size < uint64(n) || size > uint64(len(record)) {
		return nil, false
	}
	types, values := record[n:size], record[size:]
	for len(types) > 0 {
		kind, n := varint(types)
		if n == 0 || len(row) == maxColumns {
			return nil, false
		}
		types = types[n:]
		length := uint64(0)
		switch {
		case kind >= 12:
			length = (kind - 12) / 2
		case kind <= 4:
			length = kind
		case kind == 5:
			length = 6
		case kind <= 7:
			length = 8
		}
		if length > uint64(len(values)) {
			return nil, false
		}
		value := values[:length]
		if kind == 9 {
			value = []byte{1} // the constant 1
		}
		row, values = append(row, value), values[length:]
	}
	return row, true
}

// integer returns the value of a column that is an integer.
func integer(b []byte) int64 {
	if len(b) == 0 || len(b) > 8 {
		return 0
	}
	n := int64(int8(b[0]))
	for _, c := range b[1:] {
		n = n<<8 | int64(c)
	}
	return n
}

// varint reads a number of one to nine bytes. n is 0 if b is too short.
func varint(b []byte) (v uint64, n int) {
	for i, c := range b {
		if i == 8 {
			return v<<8 | uint64(c), 9
		}
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}
