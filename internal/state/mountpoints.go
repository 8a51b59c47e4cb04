package state

import "github.com/layerbuild/layerbuild/executor"

// MountPoints returns the directory that the executor mounts as the lowest layer of a step's root.
// It returns "" if the directory cannot be made. Steps then make the mount points in their own file
// systems, which takes longer.
func (s *State) MountPoints() string {
	dir := s.cachePath(pointsName)
	temp := s.Cache.Temp()
	if executor.MakeMountPoints(dir, temp.Dir, temp.Prefix) != nil {
		return ""
	}
	return dir
}
