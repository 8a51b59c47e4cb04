package sbom

import (
	"encoding/binary"
	"fmt"
)

// The format of ndb (lib/backend/ndb/rpmpkg.c in rpm): a page begins with a header of two slots;
// it and the next pages consist of slots, one for each package. A slot refers to the blob of the
// package: a header of 16 bytes, and the header of the package. All numbers are little-endian.
const (
	ndbMagic     = "RpmP"
	ndbSlotMagic = "Slot"
	ndbBlobMagic = "BlbS"
	ndbSlot      = 16
	ndbPage      = 4096
	ndbBlock     = 16 // the unit of offsets
)

// readNDB calls each with the headers of a database in the format ndb.
func readNDB(b *blocks, each func(header []byte) error) error {
	head, err := b.at(0, 2*ndbSlot)
	if err != nil {
		return err
	}
	pages := int64(binary.LittleEndian.Uint32(head[12:]))
	if string(head[:4]) != ndbMagic || binary.LittleEndian.Uint32(head[4:]) != 0 || pages == 0 {
		return fmt.Errorf("%w: it is not in the format ndb", errDatabase)
	}
	for page := range pages {
		slots, err := b.at(page*ndbPage, ndbPage)
		if err != nil {
			return err
		}
		if page == 0 {
			slots = slots[2*ndbSlot:]
		}
		if err := readSlots(b, slots, each); err != nil {
			return err
		}
	}
	return nil
}

// readSlots calls each with the headers to which slots refer.
func readSlots(b *blocks, slots []byte, each func(header []byte) error) error {
	for ; len(slots) >= ndbSlot; slots = slots[ndbSlot:] {
		number := binary.LittleEndian.Uint32(slots[4:])
		offset := ndbBlock * int64(binary.LittleEndian.Uint32(slots[8:]))
		if string(slots[:4]) != ndbSlotMagic || number == 0 || offset == 0 {
			continue // not in use
		}
		blob, err := b.at(offset, 16)
		if err != nil {
			return err
		}
		if string(blob[:4]) != ndbBlobMagic || binary.LittleEndian.Uint32(blob[4:]) != number {
			return fmt.Errorf("%w: package %d is not at %d", errDatabase, number, offset)
		}
		header, err := b.at(offset+16, int64(binary.LittleEndian.Uint32(blob[12:])))
		if err == nil {
			err = each(header)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
