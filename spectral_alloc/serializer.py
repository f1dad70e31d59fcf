import pickle
def dumps(v, flags): return [pickle.dumps(v,5)],[1]
def loads(parts): return pickle.loads(parts[0])
