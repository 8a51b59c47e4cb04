package bake

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Variable is a variable for --list variables.
type Variable struct {
	Name        string  `json:"name"`
	Description string  `json:"description,omitempty"`
	Type        string  `json:"type,omitempty"` // "" if the file does not give one
	Value       *string `json:"value,omitempty"`
}

// variable is a block of a variable.
type variable struct {
	name        string
	attrs       hcl.Attributes
	validations []*hcl.Block
	def         hcl.Range

	// The type is known when the value is evaluated.
	constraint cty.Type
	typed      bool
}

// addVariable adds a block of a variable. It takes the place of an earlier one.
func (e *evaluator) addVariable(b *hcl.Block) error {
	if err := checkBlocks(b.Body, []string{"validation"}); err != nil {
		return err
	}
	content, rest, diags := b.Body.PartialContent(&hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "type"}, {Name: "default"},
			{Name: "description"}},
		Blocks: []hcl.BlockHeaderSchema{{Type: "validation"}},
	})
	if err := failed(diags); err != nil {
		return err
	}
	if err := noneLeft(rest, "variable"); err != nil {
		return err
	}
	e.variables[b.Labels[0]] = &variable{name: b.Labels[0], attrs: content.Attributes,
		validations: content.Blocks, def: b.DefRange}
	return nil
}

// noneLeft returns an error if a block has attributes that are not known.
func noneLeft(rest hcl.Body, kind string) error {
	attrs, err := attributesOf(rest)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		return errorf(attrs[name].NameRange, "a %s has no attribute %s", kind, name)
	}
	return nil
}

// named returns the value of a variable or of an attribute at the top level, and reports whether
// there is one of that name.
func (e *evaluator) named(name string) (cty.Value, bool, error) {
	if v, ok := e.values[name]; ok {
		return v, true, nil
	}
	attr, isAttr := e.attrs[name]
	v, isVar := e.variables[name]
	if !isAttr && !isVar {
		return cty.NilVal, false, nil
	}
	var value cty.Value
	r := hcl.Range{}
	if isVar {
		r = v.def
	} else {
		r = attr.NameRange
	}
	err := e.once("the variable "+name, r, func() (err error) {
		if isAttr {
			value, err = e.eval(attr.Expr, nil)
			if err == nil && isVar {
				value, err = e.overridden(&variable{name: name, def: v.def}, value)
			}
			return err
		}
		value, err = e.valueOf(v)
		return at(v.def, err)
	})
	if err == nil {
		e.values[name] = value
	}
	return value, true, err
}

// valueOf returns the value of a variable: that of the user, or the default.
func (e *evaluator) valueOf(v *variable) (cty.Value, error) {
	v.constraint = cty.DynamicPseudoType
	if attr := v.attrs["type"]; attr != nil {
		t, diags := typeexpr.TypeConstraint(attr.Expr)
		if err := failed(diags); err != nil {
			return cty.NilVal, err
		}
		v.constraint, v.typed = t, true
	}
	if v.attrs["default"] == nil {
		value := cty.StringVal("")
		if v.typed {
			value = cty.NullVal(v.constraint)
		}
		if _, _, ok := e.user(v); !ok {
			return value, nil
		}
		return e.overridden(v, cty.DynamicVal)
	}
	value, err := e.eval(v.attrs["default"].Expr, nil)
	if err != nil {
		return cty.NilVal, err
	}
	if value, err = convert.Convert(value, v.constraint); err != nil {
		return cty.NilVal, errorf(v.attrs["default"].Expr.Range(),
			"the default is not of the type %s: %v", v.constraint.FriendlyName(), err)
	}
	return e.overridden(v, value)
}

// jsonSuffix is the end of the names of variables of the environment whose values are JSON.
const jsonSuffix = "_JSON"

// user returns the value that the user has set for a variable, and reports whether that is JSON. As
// in buildx, the variable NAME_JSON is JSON for the variable NAME, unless the files declare one of
// that name.
func (e *evaluator) user(v *variable) (value string, isJSON, ok bool) {
	value, ok = e.o.lookupVariable(v.name)
	if ok && !v.typed {
		return value, false, true
	}
	name := v.name + jsonSuffix
	_, builtin := e.o.Builtins[name]
	if _, declared := e.variables[name]; declared || builtin {
		return value, false, ok
	}
	if text, set := e.o.lookupVariable(name); set {
		return text, true, true
	}
	return value, false, ok
}

// overridden returns the value that the user has set for a variable, and value if there is none.
// The result has the type of the variable or, without one, that of value; cty.DynamicVal stands for
// a variable without a default.
func (e *evaluator) overridden(v *variable, value cty.Value) (cty.Value, error) {
	text, isJSON, ok := e.user(v)
	if !ok {
		return value, nil
	}
	if !v.typed {
		t := value.Type()
		switch {
		case t == cty.DynamicPseudoType:
			return cty.StringVal(text), nil
		case t.IsPrimitiveType():
			return primitive(v.name, text, t)
		}
		return cty.NilVal, fmt.Errorf("the environment sets %s, whose default is a %s: declare "+
			"its type, such as type = list(string)", v.name, t.FriendlyName())
	}
	t := v.constraint
	switch {
	case isJSON:
		value, err := ctyjson.Unmarshal([]byte(text), t)
		if err != nil {
			return cty.NilVal, fmt.Errorf("%s%s of the environment: %w", v.name, jsonSuffix, err)
		}
		return value, nil
	case t.IsPrimitiveType():
		return primitive(v.name, text, t)
	case t == cty.DynamicPseudoType:
		return cty.StringVal(text), nil
	}
	value, err := fromCSV(v.name, text, t)
	if err != nil {
		return cty.NilVal, fmt.Errorf("%s of the environment: %w", v.name, err)
	}
	return value, nil
}

// primitive converts the text of a variable to a primitive type.
func primitive(name, text string, t cty.Type) (cty.Value, error) {
	switch t {
	case cty.String:
		return cty.StringVal(text), nil
	case cty.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return cty.NilVal, fmt.Errorf("%s is %q: true or false is expected", name, text)
		}
		return cty.BoolVal(b), nil
	case cty.Number:
		if n, err := strconv.ParseFloat(text, 64); err == nil && n-n == 0 { // finite
			return cty.NumberVal(big.NewFloat(n)), nil
		}
		return cty.NilVal, fmt.Errorf("%s is %q: a number is expected", name, text)
	}
	return cty.NilVal, fmt.Errorf("%s has the type %s, which is given as JSON: set %s%s", name,
		t.FriendlyName(), name, jsonSuffix)
}

// fromCSV converts the text of a variable, whose elements commas separate, to a collection.
func fromCSV(name, text string, t cty.Type) (cty.Value, error) {
	if !t.IsListType() && !t.IsSetType() && !t.IsMapType() && !t.IsTupleType() {
		return primitive(name, text, t)
	}
	fields, err := splitFields(text)
	if err != nil {
		return cty.NilVal, err
	}
	if t.IsMapType() {
		return mapFromCSV(name, fields, t)
	}
	values := make([]cty.Value, len(fields))
	if t.IsTupleType() && t.Length() != len(fields) {
		return cty.NilVal, fmt.Errorf("%d elements are expected, not %d", t.Length(), len(fields))
	}
	for i, field := range fields {
		element := cty.DynamicPseudoType
		if t.IsTupleType() {
			element = t.TupleElementType(i)
		} else {
			element = t.ElementType()
		}
		if values[i], err = primitive(name, field, element); err != nil {
			return cty.NilVal, err
		}
	}
	switch {
	case t.IsTupleType():
		return cty.TupleVal(values), nil
	case t.IsSetType():
		return cty.SetVal(values), nil
	}
	return cty.ListVal(values), nil
}

// mapFromCSV converts fields of the form KEY:VALUE to a map.
func mapFromCSV(name string, fields []string, t cty.Type) (cty.Value, error) {
	values := map[string]cty.Value{}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, ":")
		if !ok {
			return cty.NilVal, fmt.Errorf("%q is not KEY:VALUE", field)
		}
		var err error
		if values[key], err = primitive(name, value, t.ElementType()); err != nil {
			return cty.NilVal, err
		}
	}
	return cty.MapVal(values), nil
}

// allVariables evaluates and checks all variables, and returns them in the order of their names.
func (e *evaluator) allVariables() ([]Variable, error) {
	var list []Variable
	for _, name := range slices.Sorted(maps.Keys(e.variables)) {
		value, _, err := e.named(name)
		if err != nil {
			return nil, err
		}
		v := e.variables[name]
		out := Variable{Name: name}
		if attr := v.attrs["description"]; attr != nil {
			text, err := e.text(attr, nil)
			if err != nil {
				return nil, err
			}
			out.Description = text
		}
		if v.typed {
			out.Type = v.constraint.FriendlyNameForConstraint()
		}
		out.Value = shown(v, value)
		list = append(list, out)
	}
	for _, v := range list {
		if err := e.validate(e.variables[v.Name]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// shown returns the value of a variable as text, in JSON if it is not primitive; nil for null.
func shown(v *variable, value cty.Value) *string {
	if value.IsNull() {
		return nil
	}
	t := value.Type()
	if v.typed && v.constraint != cty.DynamicPseudoType {
		t = v.constraint
	}
	text := ""
	if s, err := convert.Convert(value, cty.String); err == nil && value.Type().IsPrimitiveType() {
		text = s.AsString()
	} else if data, err := ctyjson.Marshal(value, t); err == nil {
		text = string(data)
	}
	return &text
}

// text evaluates an attribute that is a text.
func (e *evaluator) text(attr *hcl.Attribute, l locals) (string, error) {
	v, err := e.eval(attr.Expr, l)
	if err != nil {
		return "", err
	}
	if v, err = convert.Convert(v, cty.String); err != nil || v.IsNull() {
		return "", errorf(attr.Expr.Range(), "%s: a string is expected", attr.Name)
	}
	return v.AsString(), nil
}

// validate checks the conditions of a variable.
func (e *evaluator) validate(v *variable) error {
	for _, b := range v.validations {
		content, diags := b.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
			{Name: "condition", Required: true}, {Name: "error_message", Required: true}}})
		if err := failed(diags); err != nil {
			return err
		}
		condition := content.Attributes["condition"]
		value, err := e.eval(condition.Expr, nil)
		if err != nil {
			return err
		}
		if value, err = convert.Convert(value, cty.Bool); err != nil || value.IsNull() {
			return errorf(condition.Expr.Range(), "the condition is neither true nor false")
		}
		if value.True() {
			continue
		}
		message, err := e.text(content.Attributes["error_message"], nil)
		if err != nil {
			return err
		}
		return at(condition.Expr.Range(), errors.New(v.name+": "+message))
	}
	return nil
}
