package sorting

import "sort"

// Func sorts list like slices.SortFunc.
func Func[T any](list []T, compare func(a, b T) int) {
	sort.Sort(by[T]{list, compare})
}

// StableFunc sorts list like slices.SortStableFunc.
func StableFunc[T any](list []T, compare func(a, b T) int) {
	sort.Stable(by[T]{list, compare})
}

// by implements sort.Interface.
type by[T any] struct {
	list    []T
	compare func(a, b T) int
}

func (b by[T]) Len() int           { return len(b.list) }
func (b by[T]) Less(i, j int) bool { return b.compare(b.list[i], b.list[j]) < 0 }
func (b by[T]) Swap(i, j int)      { b.list[i], b.list[j] = b.list[j], b.list[i] }
