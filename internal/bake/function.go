package bake

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// libraryFunctions returns the functions of packages hcl and cty.
func libraryFunctions() map[string]function.Function {
	return map[string]function.Function{
		"absolute": stdlib.AbsoluteFunc, "add": stdlib.AddFunc, "and": stdlib.AndFunc,
		"byteslen": stdlib.BytesLenFunc, "bytesslice": stdlib.BytesSliceFunc,
		"can": tryfunc.CanFunc, "ceil": stdlib.CeilFunc, "chomp": stdlib.ChompFunc,
		"chunklist": stdlib.ChunklistFunc, "coalesce": stdlib.CoalesceFunc,
		"coalescelist": stdlib.CoalesceListFunc, "compact": stdlib.CompactFunc,
		"concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc,
		"convert": typeexpr.ConvertFunc, "csvdecode": stdlib.CSVDecodeFunc,
		"distinct": stdlib.DistinctFunc, "divide": stdlib.DivideFunc,
		"element": stdlib.ElementFunc, "equal": stdlib.EqualFunc, "flatten": stdlib.FlattenFunc,
		"floor": stdlib.FloorFunc, "format": stdlib.FormatFunc,
		"formatdate": stdlib.FormatDateFunc, "formatlist": stdlib.FormatListFunc,
		"greaterthan":          stdlib.GreaterThanFunc,
		"greaterthanorequalto": stdlib.GreaterThanOrEqualToFunc,
		"hasindex":             stdlib.HasIndexFunc, "indent": stdlib.IndentFunc,
		"index": stdlib.IndexFunc, "int": stdlib.IntFunc, "join": stdlib.JoinFunc,
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc,
		"keys": stdlib.KeysFunc, "length": stdlib.LengthFunc, "lessthan": stdlib.LessThanFunc,
		"lessthanorequalto": stdlib.LessThanOrEqualToFunc, "log": stdlib.LogFunc,
		"lookup": stdlib.LookupFunc, "lower": stdlib.LowerFunc, "max": stdlib.MaxFunc,
		"merge": stdlib.MergeFunc, "min": stdlib.MinFunc, "modulo": stdlib.ModuloFunc,
		"multiply": stdlib.MultiplyFunc, "negate": stdlib.NegateFunc, "not": stdlib.NotFunc,
		"notequal": stdlib.NotEqualFunc, "or": stdlib.OrFunc, "parseint": stdlib.ParseIntFunc,
		"pow": stdlib.PowFunc, "range": stdlib.RangeFunc, "regex": stdlib.RegexFunc,
		"regex_replace": stdlib.RegexReplaceFunc, "regexall": stdlib.RegexAllFunc,
		"replace": stdlib.ReplaceFunc, "reverse": stdlib.ReverseFunc,
		"reverselist": stdlib.ReverseListFunc, "sethaselement": stdlib.SetHasElementFunc,
		"setintersection": stdlib.SetIntersectionFunc, "setproduct": stdlib.SetProductFunc,
		"setsubtract":            stdlib.SetSubtractFunc,
		"setsymmetricdifference": stdlib.SetSymmetricDifferenceFunc,
		"setunion":               stdlib.SetUnionFunc, "signum": stdlib.SignumFunc,
		"slice": stdlib.SliceFunc, "sort": stdlib.SortFunc, "split": stdlib.SplitFunc,
		"strlen": stdlib.StrlenFunc, "substr": stdlib.SubstrFunc,
		"subtract": stdlib.SubtractFunc, "timeadd": stdlib.TimeAddFunc,
		"title": stdlib.TitleFunc, "trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc,
		"trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc,
		"try": tryfunc.TryFunc, "upper": stdlib.UpperFunc, "values": stdlib.ValuesFunc,
		"zipmap": stdlib.ZipmapFunc,
	}
}

// standardFunctions returns the functions that files can use without a definition.
func (e *evaluator) standardFunctions() map[string]function.Function {
	all := libraryFunctions()
	for name, f := range ownFunctions(e.o) {
		all[name] = f
	}
	return all
}

// addFunction adds a block that defines a function.
func (e *evaluator) addFunction(b *hcl.Block) error {
	if err := checkBlocks(b.Body, nil); err != nil {
		return err
	}
	content, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
		{Name: "params", Required: true}, {Name: "variadic_params"},
		{Name: "result", Required: true}}})
	if err := failed(diags); err != nil {
		return err
	}
	name := b.Labels[0]
	exprs, diags := hcl.ExprList(content.Attributes["params"].Expr)
	if err := failed(diags); err != nil {
		return err
	}
	var params []string
	for _, expr := range exprs {
		params = append(params, hcl.ExprAsKeyword(expr))
	}
	rest := ""
	if attr := content.Attributes["variadic_params"]; attr != nil {
		rest = hcl.ExprAsKeyword(attr.Expr)
		params = append(params, rest)
	}
	for i, p := range params {
		if p == "" {
			return errorf(b.DefRange, "function %s: parameter %d is not a name", name, i+1)
		}
	}
	if rest != "" {
		params = params[:len(params)-1]
	}
	e.functions[name] = e.userFunction(name, params, rest, content.Attributes["result"].Expr)
	return nil
}

// userFunction returns a function that evaluates an expression with parameters. rest is the name of
// the list of further arguments; "": there are none.
func (e *evaluator) userFunction(name string, params []string, rest string,
	result hcl.Expression) function.Function {
	anything := func(name string) function.Parameter {
		return function.Parameter{Name: name, Type: cty.DynamicPseudoType, AllowNull: true,
			AllowDynamicType: true}
	}
	spec := &function.Spec{Type: function.StaticReturnType(cty.DynamicPseudoType)}
	for _, p := range params {
		spec.Params = append(spec.Params, anything(p))
	}
	if rest != "" {
		p := anything(rest)
		spec.VarParam = &p
	}
	spec.Impl = func(args []cty.Value, _ cty.Type) (v cty.Value, err error) {
		if e.calls++; e.calls > maxCalls {
			return cty.NilVal, errorf(result.Range(), "functions are called more than %d times",
				maxCalls)
		}
		l := locals{}
		for i, p := range params {
			l[p] = args[i]
		}
		if rest != "" {
			l[rest] = cty.TupleVal(args[len(params):])
		}
		err = e.once("the function "+name, result.Range(), func() (err error) {
			v, err = e.eval(result, l)
			return err
		})
		return v, err
	}
	return function.New(spec)
}
